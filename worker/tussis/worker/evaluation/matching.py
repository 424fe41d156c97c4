"""Finds the recordings that a file names: by source, by another path of the same file, or by the end of a source."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable

from tussis.shared.errors import CallerError
from tussis.shared.uris import shown


def names_of(sources: Iterable[str], names: Iterable[str], error: type[CallerError]) -> dict[str, str]:
    """Source -> the name that stands for it. Sources without a name are left out, as are names without a source.

    A name is the source itself, another path of the same file, or the end of the source from a slash on: ``b/a.wav``
    stands for ``s3://clinic/b/a.wav``. An exact name wins over the end of a source.

    Raises ``error`` if a name stands for several sources, or several names stand for one source.
    """
    ends: dict[str, list[str]] = defaultdict(list)
    exact: dict[str, str] = {}
    for source in sources:
        exact[_normal(source)] = source
        parts = _normal(source).split("/")
        for length in range(1, len(parts)):
            ends["/".join(parts[-length:])].append(source)
    found: dict[str, str] = {}
    for name in names:
        source = exact.get(_normal(name), "")
        if not source:
            candidates = ends.get(name.removeprefix("./"), [])
            if len(candidates) > 1:
                raise error(
                    f"{shown(name)} stands for {len(candidates)} recordings, {shown(candidates[0])} and "
                    f"{shown(candidates[1])} among them: write a longer path"
                )
            if not candidates:
                continue
            source = candidates[0]
        if source in found:
            raise error(f"{shown(found[source])} and {shown(name)} stand for the same recording {shown(source)}")
        found[source] = name
    return found


def _normal(name: str) -> str:
    """A URI unchanged; a path as an absolute one, without links."""
    return name if name.startswith("s3://") else os.path.realpath(name)
