"""However the owner ends, its servers end with it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from tests.support.processes import Running, Spawn
from tests.support.servers import server_folder
from tests.support.waiting import wait_until
from tussis.worker.embedded.server import EmbeddedServer
from tussis.worker.embedded.servers import Servers

#: The sum of what the guards may take, generously.
GONE_S = 60.0
#: A new folder's servers on a loaded machine, with room.
START_S = 120.0


@pytest.fixture
def folder() -> Iterator[Path]:
    with server_folder() as folder:
        yield folder / "servers"


@pytest.fixture
def spawn(folder: Path, spawn: Spawn) -> Spawn:
    """Made after the folder, and so ended before it is removed."""
    return spawn


def own(spawn: Spawn, folder: Path, ending: str) -> tuple[Running, dict[str, Any]]:
    """An owner process whose servers answer."""
    owner = spawn("-m", "tests.support.server_owner", folder, ending, program=sys.executable)
    return owner, owner.wait_for_event("started", START_S)


def alive(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


def command_line(pid: int) -> list[str]:
    """Empty for a process that has just ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return list(psutil.Process(pid).cmdline())
    return []


def stopped(handle: EmbeddedServer) -> bool:
    return not handle.running


def open_ports(ports: list[int]) -> list[int]:
    found = []
    for port in ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                found.append(port)
    return found


def assert_all_gone(started: dict[str, Any]) -> None:
    wait_until(lambda: not alive(started["processes"]), GONE_S, f"the end of {started['processes']}")
    assert open_ports(started["ports"]) == []
    outside = [path for path in started["sockets"] if Path(path).is_absolute()]
    assert any("grpc" in path for path in outside)
    assert [path for path in outside if Path(path).exists()] == []


@pytest.mark.parametrize(
    "blow",
    [signal.SIGKILL, signal.SIGTERM, signal.SIGINT],
    ids=lambda blow: blow.name,
)
def test_a_signal_to_the_owner_and_its_group_ends_the_servers(spawn: Spawn, folder: Path, blow: signal.Signals) -> None:
    owner, started = own(spawn, folder, "wait")

    owner.signal(blow, group=True)

    assert owner.wait(GONE_S) != 0
    assert_all_gone(started)
    # Cleanly: there is nothing to recover.
    assert "database system is shut down" in (folder / "postgres.log").read_text()


@pytest.mark.parametrize("ending", ["leave", "raise"])
def test_leaving_the_block_ends_the_servers(spawn: Spawn, folder: Path, ending: str) -> None:
    owner, started = own(spawn, folder, ending)

    assert owner.wait(GONE_S) == (0 if ending == "leave" else 1)

    assert alive(started["processes"]) == []
    assert open_ports(started["ports"]) == []


def test_a_killed_owner_during_the_start_leaves_nothing(spawn: Spawn, folder: Path) -> None:
    for _ in range(3):  # at different moments: on the empty folder, in initdb, in the start
        owner = spawn("-m", "tests.support.server_owner", folder, "wait", program=sys.executable)
        wait_until(owner.children, 30, "the first guard")
        owner.signal(signal.SIGKILL)
        owner.wait(5)
        wait_until(lambda: not _of_folder(folder), GONE_S, "the end of all of the folder's processes")
    with Servers(folder) as servers:
        assert servers.postgres.answers()


def _of_folder(folder: Path) -> list[int]:
    """The processes that work in the folder, or were told of it."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = [*(process.info["cmdline"] or []), process.info["cwd"] or ""]
        if any(str(folder) in word for word in words) and "tests.support.server_owner" not in words:
            found.append(process.pid)
    return found


def test_a_fork_that_holds_the_pipes_does_not_keep_the_servers(spawn: Spawn, folder: Path) -> None:
    owner, started = own(spawn, folder, "fork")
    handles = [*started["pids"].values()]

    owner.signal(signal.SIGKILL)

    wait_until(lambda: not alive(handles), GONE_S, "the end of the servers")
    assert [pid for pid in alive(started["processes"]) if command_line(pid)[-1:] == ["fork"]]


def test_a_killed_guard_takes_its_server_along(servers: Servers) -> None:
    for handle in (servers.postgres, servers.broker, servers.s3):
        guard = psutil.Process(psutil.Process(handle.pid).ppid())
        assert "guard.py" in " ".join(guard.cmdline())
        processes = [*guard.children(recursive=True), guard]

        guard.kill()
        guard.wait(GONE_S)
        wait_until(partial(stopped, handle), 10, f"{handle.name} being seen as gone")
        handle.start()
        assert alive([process.pid for process in processes]) == []
        assert handle.answers()


def test_a_terminated_guard_stops_its_server(servers: Servers) -> None:
    server = psutil.Process(servers.broker.pid)
    psutil.Process(server.ppid()).terminate()
    server.wait(GONE_S)
    wait_until(partial(stopped, servers.broker), 10, "the guard's end")
    servers.broker.start()
    assert servers.broker.answers()


def test_a_frozen_server_is_stopped_all_the_same(servers: Servers) -> None:
    for handle in (servers.postgres, servers.broker, servers.s3):
        os.kill(handle.pid, signal.SIGSTOP)
        handle.stop()
        handle.start()
        assert handle.answers()


def test_the_next_owner_waits_for_the_servers_of_a_killed_one(spawn: Spawn, folder: Path) -> None:
    owner, started = own(spawn, folder, "wait")
    with psycopg.connect(started["endpoints"]["database_url"], autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    owner.signal(signal.SIGKILL)
    owner.wait(5)

    with Servers(folder) as servers, psycopg.connect(servers.endpoints.database_url) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
        assert alive([*started["pids"].values()]) == []


def test_a_living_owner_in_another_process_is_named(spawn: Spawn, folder: Path) -> None:
    owner, _ = own(spawn, folder, "wait")
    second = subprocess.run(
        [sys.executable, "-m", "tests.support.server_owner", str(folder), "wait"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 1
    assert second.stderr == (f"tussis: {folder} is in use by process {owner.pid}: stop it, or choose another folder\n")
