"""Isolates the local commands from the settings of the shell; finds the ``tussis`` command; writes files."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tussis.shared.errors import NotInstalled, OutputUnwritable
from tussis.shared.installation import pip_line
from tussis.worker.atomic import replace_file
from tussis.worker.embedded.room import FULL, disk_full


def forget_deployments() -> None:
    """Remove the variables that would direct clients to other servers from the environment of this process.

    These are the settings of a real deployment, the variables of boto3 and libpq, and proxies. The commands that the
    demo starts inherit the rest, because they belong to the same installation.
    """
    for name in tuple(os.environ):
        if name.startswith(("TUSSIS_", "AWS_", "PG")) or name.lower().endswith("_proxy"):
            del os.environ[name]


def last_error_line(lines: Sequence[str]) -> str:
    """The error message of a failed command: its line that starts with ``tussis:``, else its last line."""
    told = [line for line in lines if line.strip()]
    ours = [line.removeprefix("tussis: ") for line in told if line.startswith("tussis: ")]
    return (ours or told or ["no output"])[-1]


def tussis_command() -> str:
    """The ``tussis`` command of this installation. Raises :class:`NotInstalled`."""
    beside = Path(sys.executable).with_name("tussis")
    found = str(beside) if beside.is_file() else shutil.which("tussis")
    if found is None:
        raise NotInstalled(f"no tussis command in the folder of {sys.executable}: {pip_line('cpu,models,embedded')}")
    return found


def shown_command() -> str:
    """The command as a user types it in this shell."""
    command = tussis_command()
    if shutil.which("tussis") == command:
        return "tussis"
    path = Path(command)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else command


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Replace an OSError while writing ``path``. Raises :class:`DiskFull` and :class:`OutputUnwritable`."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise disk_full(path) from error
        raise OutputUnwritable(f"cannot write {path}: {error.strerror or error}; choose another folder") from error


def write_whole(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all. Raises as :func:`writing`."""
    with writing(path):
        replace_file(path, data, mode=mode)
