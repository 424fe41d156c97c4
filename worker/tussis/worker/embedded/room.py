"""A full disk, named in one line, whichever part of the local servers meets it first."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tussis.shared.errors import DiskFull, TussisError

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
#: What the servers, started with LC_ALL=C, and Python say of it.
_SAID: Final = tuple(os.strerror(number) for number in FULL)
#: Less than any of the servers can begin a file with, bytes.
_PROBE: Final = 65_536


@contextmanager
def naming_full_disk(folder: Path) -> Iterator[None]:
    """Raise :class:`DiskFull` in place of an error that a full disk under ``folder`` explains.

    That is one that says so, and any while nothing can be written there: a server cannot write to its log either.
    Other errors go on as they are.
    """
    try:
        yield
    except DiskFull:
        raise
    except (TussisError, OSError) as error:
        if not (_says_so(error) or is_full(folder)):
            raise
        named = Path(error.filename).parent if isinstance(error, OSError) and error.filename else folder
        raise disk_full(named if named.is_relative_to(folder) else folder) from error


def disk_full(path: Path) -> DiskFull:
    """The error for a file or a folder."""
    return DiskFull(f"the disk is full: cannot write {path}; make room, or choose another folder")


def is_full(folder: Path) -> bool:
    """Whether a small file can not be written in the folder for want of room."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\1" * _PROBE)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return error.errno in FULL
    return False


def _says_so(error: BaseException) -> bool:
    return (isinstance(error, OSError) and error.errno in FULL) or any(said in str(error) for said in _SAID)
