"""Stores the progress of a sweep in a file, from which an interrupted sweep continues."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tussis.shared.errors import FileUnreadable, OutputUnwritable
from tussis.worker.atomic import replace_file
from tussis.worker.sweep.sweep import SweepCounts

_VERSION = 1


@dataclass(frozen=True)
class SweepProgress:
    """The progress: all keys up to ``last_key`` are done. Only a sweep with the same ``request`` can continue here."""

    request: dict[str, Any]
    last_key: str
    counts: SweepCounts


def read_progress(path: Path, request: dict[str, Any]) -> SweepProgress | None:
    """The progress in the file. None when there is no file.

    Raises :class:`FileUnreadable`, also when the file belongs to another sweep than ``request``.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise FileUnreadable(f"cannot read {path}: {error}") from None
    try:
        raw = json.loads(text)
        if raw["v"] != _VERSION or not isinstance(raw["last_key"], str):
            raise ValueError("another version of the file")
        progress = SweepProgress(dict(raw["order"]), raw["last_key"], SweepCounts(**raw["counts"]))
    except (ValueError, KeyError, TypeError):
        raise FileUnreadable(f"{path} is not a progress file of a sweep: name another file, or remove it") from None
    if progress.request != request:
        changed = sorted(name for name in request if progress.request.get(name) != request[name])
        raise FileUnreadable(
            f"{path} has the progress of another sweep ({', '.join(changed)} differ): name another file, or remove it"
        )
    return progress


def write_progress(path: Path, progress: SweepProgress) -> None:
    """Write the progress atomically. Raises :class:`OutputUnwritable`."""
    document = {
        "v": _VERSION,
        "order": progress.request,
        "last_key": progress.last_key,
        "counts": progress.counts.as_dict(),
    }
    try:
        replace_file(path, json.dumps(document, ensure_ascii=False).encode("utf-8"), durable=True)
    except OSError as error:
        raise OutputUnwritable(f"cannot write {path}: {error.strerror}") from None


def remove_progress(path: Path) -> None:
    """Remove the file after the sweep is done. Raises :class:`OutputUnwritable`."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputUnwritable(f"cannot remove {path}: {error.strerror}") from None
