"""Stores the progress of a sweep in a file, from which an interrupted sweep continues."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tussis.shared.errors import FileUnreadable, OutputUnwritable
from tussis.worker.atomic import replace_file
from tussis.worker.sweep.sweep import Counts

_VERSION = 1


@dataclass(frozen=True)
class Place:
    """The progress: all keys up to ``last_key`` are done. Only a sweep with the same ``order`` can continue here."""

    order: dict[str, Any]
    last_key: str
    counts: Counts


def read_place(path: Path, order: dict[str, Any]) -> Place | None:
    """The place in the file. None when there is no file.

    Raises :class:`FileUnreadable`, also when the file belongs to another sweep than ``order``.
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
            raise ValueError("not of this version")
        place = Place(dict(raw["order"]), raw["last_key"], Counts(**raw["counts"]))
    except (ValueError, KeyError, TypeError):
        raise FileUnreadable(f"{path} is no place of a sweep: name another file, or remove it") from None
    if place.order != order:
        changed = sorted(name for name in order if place.order.get(name) != order[name])
        raise FileUnreadable(
            f"{path} belongs to another sweep ({', '.join(changed)} differ): name another file, or remove it"
        )
    return place


def write_place(path: Path, place: Place) -> None:
    """Write the place atomically. Raises :class:`OutputUnwritable`."""
    document = {
        "v": _VERSION,
        "order": place.order,
        "last_key": place.last_key,
        "counts": place.counts.as_dict(),
    }
    try:
        replace_file(path, json.dumps(document, ensure_ascii=False).encode("utf-8"), durable=True)
    except OSError as error:
        raise OutputUnwritable(f"cannot write {path}: {error.strerror}") from None


def remove_place(path: Path) -> None:
    """Remove the file after the sweep is done. Raises :class:`OutputUnwritable`."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputUnwritable(f"cannot remove {path}: {error.strerror}") from None
