"""Processes that begin with the large libraries imported, which saves each worker of a test seconds of the processor.

A server process imports the libraries once and forks for each request. It imports nothing of Tussis and nothing of
Celery, whose imports depend on the environment. The tests of the command line, of the demo and of ``tussis up`` start
their processes the ordinary way.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest

#: Torch alone takes more than half of a worker's start. A worker imports all of them.
LIBRARIES = ("torch", "torchaudio", "boto3", "psycopg", "sqlalchemy.dialects.postgresql")
_MOST = 1 << 20


class Forked:
    """A process that the server forked, with the attributes of ``subprocess.Popen`` that the tests use."""

    def __init__(self, pid: int, stdout: int, stderr: int, ended: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdout: IO[str] = os.fdopen(stdout, encoding="utf-8", errors="replace")
        self.stderr: IO[str] = os.fdopen(stderr, encoding="utf-8", errors="replace")
        self._ended = ended

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while the process runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code. Raises ``subprocess.TimeoutExpired``."""
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            self.returncode = os.waitstatus_to_exitcode(int(os.read(self._ended, 16) or signal.SIGKILL))
            os.close(self._ended)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process, unless it has ended."""
        self.send_signal(signal.SIGKILL)


class Preloaded:
    """The server, for the tests."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        kept = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL")
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.preloaded", str(theirs.fileno())],
            cwd=Path(__file__).resolve().parents[2],
            env={name: os.environ[name] for name in kept if name in os.environ},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            # Python's streams in a forked process are those of the server, so these are pipes as well.
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        theirs.close()

    def fork(self, argv: Sequence[str], environment: Mapping[str, str], cwd: Path) -> Forked:
        """Run a Python program in a new process and session. ``argv`` is a script or ``-m module``, and arguments."""
        pipes = [os.pipe() for _ in range(3)]
        request = json.dumps([list(argv), dict(environment), str(cwd)]).encode()
        socket.send_fds(self._ours, [request], [theirs for _, theirs in pipes])
        for _, theirs in pipes:
            os.close(theirs)
        (stdout, _), (stderr, _), (ended, _) = pipes
        return Forked(int(self._ours.recv(16)), stdout, stderr, ended)

    def close(self) -> None:
        """End the server."""
        self._ours.close()
        self._server.communicate(timeout=30)


@pytest.fixture(scope="session")
def preloaded() -> Iterator[Preloaded]:
    """The session's server."""
    server = Preloaded()
    yield server
    server.close()


def _serve(requests: socket.socket) -> list[str]:
    """Serve until the tests end. Return in each forked process, with the arguments of its program."""
    waking, woken = socket.socketpair()
    woken.setblocking(False)
    signal.set_wakeup_fd(woken.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([requests, waking], [], [])
        if waking in ready:
            waking.recv(4096)
            for pid in list(running):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    os.write(running[pid], str(status).encode())
                    os.close(running.pop(pid))
        if requests not in ready:
            continue
        request, ends, _, _ = socket.recv_fds(requests, _MOST, 3)
        if not request:
            os._exit(0)
        stdout, stderr, ended = ends
        argv, environment, cwd = json.loads(request)
        pid = os.fork()
        if pid:
            running[pid] = ended
            requests.send(str(pid).encode())
            os.close(stdout)
            os.close(stderr)
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        for other in (stdout, stderr, ended, *running.values()):
            os.close(other)
        for end in (requests, waking, woken):
            end.close()
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        return list(argv)


def _main() -> None:
    import importlib

    requests = socket.socket(fileno=int(sys.argv[1]))
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()
    argv = _serve(requests)
    if argv[0] == "-m":
        sys.argv = argv[1:]
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = argv
        runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    _main()
