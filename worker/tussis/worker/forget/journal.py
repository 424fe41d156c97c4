"""The journal of tombstones: a file outside the database, from which they are written again after a restore.

One JSON object a line. A line with ``key`` has a key of the hashes, one with ``digest`` a tombstone, one with
``lifted`` the hash of a tombstone that was lifted. It has no key of an object and no person. The file has the key of
the hashes, so that a backup from before the first tombstone can be restored: whoever reads the file can test guesses.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tussis.shared.errors import FileUnreadable, OutputUnwritable
from tussis.shared.forgetting import TargetKind
from tussis.shared.store.forgotten import Tombstone

_VERSION: Final = 1


@dataclass
class Journal:
    """What a journal says: the keys, and the tombstones that were not lifted later."""

    keys: list[bytes] = field(default_factory=list)
    tombstones: dict[bytes, Tombstone] = field(default_factory=dict)


def append(path: Path, keys: Sequence[bytes], tombstones: Sequence[Tombstone], *, lifted: bool = False) -> None:
    """Append the tombstones, or that they were lifted, and wait until the disk has them.

    Raises :class:`OutputUnwritable`.
    """
    at = datetime.now(UTC).isoformat(timespec="seconds")
    lines: list[dict[str, Any]] = [{"v": _VERSION, "key": key.hex()} for key in keys]
    for one in tombstones:
        if lifted:
            lines.append({"v": _VERSION, "lifted": one.digest.hex(), "at": at})
        else:
            named = {"digest": one.digest.hex(), "kind": one.kind.value, "length": one.length}
            lines.append({"v": _VERSION, **named, "at": at})
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            # One that was killed while it wrote leaves half a line.
            written = os.write(descriptor, (b"\n" if _is_cut(path) else b"") + data)
            if written < len(data):
                raise OSError("the disk is full")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OutputUnwritable(f"cannot write the journal {path}: {error.strerror or error}") from error


def read(path: Path) -> Journal:
    """Read a journal. Raises :class:`FileUnreadable`. A cut line, of a process that was killed, is left out."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise FileUnreadable(f"cannot read the journal {path}: {error.strerror or error}") from error
    journal = Journal()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            if entry["v"] != _VERSION:
                raise FileUnreadable(f"{path}, line {number}: version {entry['v']}: upgrade Tussis")
            if "key" in entry:
                journal.keys.append(bytes.fromhex(entry["key"]))
            elif "lifted" in entry:
                journal.tombstones.pop(bytes.fromhex(entry["lifted"]), None)
            else:
                digest = bytes.fromhex(entry["digest"])
                journal.tombstones[digest] = Tombstone(digest, TargetKind(entry["kind"]), entry["length"])
        except (ValueError, KeyError, TypeError) as error:
            if _is_half(line):
                continue
            raise FileUnreadable(f"{path}, line {number} is not of a journal: {error}") from error
    return journal


def _is_half(line: bytes) -> bool:
    return line.startswith(b'{"v":') and not line.endswith(b"}")


def _is_cut(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
