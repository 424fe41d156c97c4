"""The restarts of ``tussis up``: an ended server is started again, and not without end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tussis.shared.errors import DiskFull, ServerFailed
from tussis.worker.local.screen import Screen
from tussis.worker.up import run
from tussis.worker.up.run import Up, UpRequest


class Ending:
    """A server that starts, and ends before it is looked at again."""

    running = False

    def __init__(self, name: str, home: Path) -> None:
        self.name, self.home, self.starts = name, home, 0

    def start(self) -> None:
        self.starts += 1

    def last_error(self) -> str:
        return "no room for the file; see broker.log"


class AllEnding:
    def __init__(self, home: Path) -> None:
        self.postgres, self.broker, self.s3 = (Ending(name, home) for name in ("postgres", "broker", "s3"))


def test_a_server_that_ends_again_and_again_ends_the_command_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given a server that ends after each start, then it is started five times within a minute, and the command ends.
    A minute later it is started again."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    up, servers = Up(UpRequest(tmp_path), Screen()), AllEnding(tmp_path)
    restart: Any = up._restart

    for _ in range(5):
        restart(servers, None, {})
        now[0] += 1.0
    with pytest.raises(ServerFailed, match=r"^postgres ended 6 times within a minute: no room for the file; see "):
        restart(servers, None, {})
    assert servers.broker.starts == 5
    now[0] += 60.0
    restart(servers, None, {})
    assert servers.postgres.starts == 6


def test_a_full_disk_ends_the_command_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "is_full", lambda folder: folder == tmp_path)
    up, servers = Up(UpRequest(tmp_path), Screen()), AllEnding(tmp_path)
    restart: Any = up._restart

    with pytest.raises(DiskFull, match=f"cannot write {tmp_path};"):
        restart(servers, None, {})

    assert servers.postgres.starts == 0
