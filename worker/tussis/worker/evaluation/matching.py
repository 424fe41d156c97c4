"""Finds the recording that a line of a file of labels names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from tussis.shared.errors import LabelsInvalid
from tussis.shared.uris import shown


def match_names(named: Iterable[str], recordings: Iterable[str]) -> Mapping[str, str]:
    """The recording of each name that has one.

    Args:
        named: names in a file of labels.
        recordings: paths and S3 URIs of recordings.

    Equal texts match. Otherwise a name matches a recording if one of them ends with the other, in whole parts of the
    path: ``a.wav`` and ``site/a.wav`` match ``s3://clinic/site/a.wav``, ``ta.wav`` does not match ``data.wav``.

    Raises:
        LabelsInvalid: a name matches several recordings, or several names match one recording.
    """
    wanted, available = dict.fromkeys(named), dict.fromkeys(recordings)
    found = {name: name for name in wanted if name in available}
    by_last = defaultdict(list)
    for recording in available:
        if recording not in wanted:
            by_last[_parts(recording)[-1]].append(recording)
    names_of: dict[str, str] = {}
    for name in wanted:
        if name in found:
            continue
        parts = _parts(name)
        ends = [one for one in by_last.get(parts[-1], ()) if _ends_alike(parts, _parts(one))]
        if len(ends) > 1:
            raise LabelsInvalid(
                f"{shown(name)} names {len(ends)} recordings, for example {shown(ends[0])} and {shown(ends[1])}: write "
                "more of the path"
            )
        for recording in ends:
            other = names_of.setdefault(recording, name)
            if other != name:
                raise LabelsInvalid(
                    f"{shown(other)} and {shown(name)} both name the recording {shown(recording)}: give the recording "
                    "with more of its path"
                )
            found[name] = recording
    return found


def _parts(name: str) -> tuple[str, ...]:
    """The parts of a path or URI. ``./a`` is ``a``."""
    if name.startswith("s3://"):
        return tuple(name.removeprefix("s3://").split("/"))
    return tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", ".")) or (name,)


def _ends_alike(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    length = min(len(one), len(other))
    return one[-length:] == other[-length:]
