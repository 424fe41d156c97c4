"""Detects a full disk and reports it in one line, whichever embedded server fails first."""

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
#: The messages of Python and of the servers, which run with LC_ALL=C, for a full disk.
_SAID: Final = tuple(os.strerror(number) for number in FULL)
#: Bytes: less than the smallest new file of any of the servers.
_PROBE: Final = 65_536


@contextmanager
def naming_full_disk(folder: Path) -> Iterator[None]:
    """Raise :class:`DiskFull` instead of an error that a full disk under ``folder`` caused.

    A full disk is the cause if the error names it, or if nothing can be written in the folder: a server on a full disk
    cannot write to its log either. Other errors are raised unchanged.
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
    """The error for a file or folder on a full disk."""
    return DiskFull(f"the disk is full: cannot write {path}; free disk space, or choose another folder")


def is_full(folder: Path) -> bool:
    """Whether a file of 64 KiB cannot be written in the folder because the disk is full."""
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
