"""A full disk under `tussis up` and `tussis demo` is one line that names the folder, and nothing is left running."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.models import write_tiny
from tests.support.processes import Spawn
from tests.support.servers import server_folder
from tests.support.waiting import wait_until
from tussis.shared.errors import DatabaseUnavailable, DiskFull, ServerFailed
from tussis.worker.embedded import room
from tussis.worker.embedded.room import is_full, naming_full_disk

#: Seconds, on a busy machine.
READY_S = 180.0
SOON_S = 60.0

Disk = Callable[[int], Path]


@pytest.fixture
def disk() -> Iterator[Disk]:
    """Makes a disk of so many megabytes; a test is skipped where the user may not mount one."""
    mount = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    with server_folder() as folder:

        def make(megabytes: int) -> Path:
            options = f"size={megabytes}m,mode=755".encode()
            if mount.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, options) != 0:
                pytest.skip(f"no small disk can be mounted here: {os.strerror(ctypes.get_errno())}")
            return folder

        yield make
        if folder.is_mount():
            # What still works in it would keep it.
            wait_until(lambda: mount.umount(bytes(folder)) == 0, SOON_S, "the disk to be let go")


def fill(path: Path) -> None:
    """Write until not a byte more is taken."""
    size = 65_536
    with path.open("wb", buffering=0) as filler:
        while size:
            try:
                filler.write(b"\1" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2


def processes_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


# 1 MB holds no binaries and no log, 8 not what initdb writes, 30 not the database's first segment of its log.
@pytest.mark.parametrize(("verb", "megabytes"), [("up", 1), ("up", 8), ("up", 30), ("demo", 8)])
def test_a_disk_that_is_too_small_is_named_at_the_start(disk: Disk, spawn: Spawn, verb: str, megabytes: int) -> None:
    data = disk(megabytes) / "data"
    run = spawn(verb, "--data", data)

    assert run.wait(READY_S) == 1, run.text
    (line,) = run.stderr
    assert line.startswith(f"tussis: the disk is full: cannot write {data}"), run.text
    assert line.endswith("; free disk space, or choose another folder")
    assert processes_in(data) == []


def test_a_disk_that_fills_up_while_it_serves_is_named(disk: Disk, spawn: Spawn, tmp_path: Path) -> None:
    data = disk(90) / "data"
    run = spawn("up", "--data", data, "--model", write_tiny(tmp_path), "--concurrency", "1")
    run.wait_for_line("until Ctrl-C", READY_S)
    environment = {
        name: value.strip("'")
        for name, _, value in (
            line.removeprefix("export ").partition("=") for line in (data / "environment").read_text().splitlines()
        )
    }

    fill(data / "filler")
    # More than what is left in the last block of the broker's file.
    uris = [f"s3://tussis/{number}.wav" for number in range(200)]
    refused = spawn("enqueue", *uris, "--no-head", environment=environment)

    assert refused.wait(SOON_S) == 1, refused.text
    assert refused.stderr[-1].startswith("tussis: ")
    assert run.wait(SOON_S) == 1, run.text
    (line,) = run.stderr
    assert line.startswith(f"tussis: the disk is full: cannot write {data}"), run.text
    assert processes_in(data) == []


@pytest.mark.parametrize(
    ("error", "full", "expected"),
    [
        (ServerFailed("initdb failed: could not write: No space left on device"), False, DiskFull),
        (ServerFailed("broker did not start: no output"), True, DiskFull),
        (ServerFailed("broker did not start: no output"), False, ServerFailed),
        (DatabaseUnavailable("no database answers"), True, DiskFull),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), False, DiskFull),
        (OSError(errno.EACCES, "Permission denied"), False, OSError),
        (subprocess.SubprocessError("no"), True, subprocess.SubprocessError),
    ],
    ids=str,
)
def test_what_a_full_disk_explains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, full: bool, expected: type[Exception]
) -> None:
    monkeypatch.setattr(room, "is_full", lambda folder: full)
    with pytest.raises(expected) as raised, naming_full_disk(tmp_path):
        raise error
    assert (str(tmp_path) in str(raised.value)) is (expected is DiskFull)


def test_a_folder_that_is_full(disk: Disk) -> None:
    folder = disk(1)
    assert not is_full(folder)
    fill(folder / "filler")
    assert is_full(folder)
