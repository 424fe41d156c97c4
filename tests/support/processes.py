"""Processes under test: their output, their exit code, and their cleanup."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import psutil
import pytest

from tests.support.preloaded import Forked, Preloaded
from tests.support.waiting import PATIENCE, wait_until

T = TypeVar("T")
#: The `tussis` command of the interpreter that runs the tests.
TUSSIS = Path(sys.executable).with_name("tussis")
ROOT = Path(__file__).resolve().parents[2]
#: An environment variable that marks the processes of one :class:`Running`.
MARK = "PYTEST_SPAWNED"
#: The supervisor of an embedded server.
GUARD = "/embedded/guard.py"
GUARD_PATIENCE_S = 30.0


class Running:
    """A process in its own process group, with its output read continuously.

    Args:
        argv: the command.
        environment: added to a minimal environment (PATH, HOME, TMPDIR and the like). The process gets no ``TUSSIS_*``
            or ``AWS_*`` of the shell.
        cwd: the working directory; the repository when None.
        preloaded: the server that forks the process; None for a process of its own.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        environment: Mapping[str, str],
        cwd: Path | None = None,
        preloaded: Preloaded | None = None,
    ) -> None:
        kept = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL")
        inherited = {name: os.environ[name] for name in kept if name in os.environ}
        self._mark = uuid.uuid4().hex
        self.argv = [str(word) for word in argv]
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        complete = {**inherited, **environment, MARK: self._mark}
        self._process: subprocess.Popen[str] | Forked
        if preloaded is not None:
            words = self.argv[1:] if self.argv[0] == sys.executable else self.argv
            self._process = preloaded.fork(words, complete, cwd or ROOT)
        else:
            self._process = subprocess.Popen(
                self.argv,
                env=complete,
                cwd=cwd or ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        self._readers = [
            self._read(self._process.stdout, self.stdout),
            self._read(self._process.stderr, self.stderr),
        ]

    @property
    def pid(self) -> int:
        """The process id, which is also the id of the process group."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON objects among the lines of both outputs so far."""
        return list(_objects([*self.stdout, *self.stderr]))

    def children(self) -> list[int]:
        """Return the pids of all descendants that run."""
        try:
            return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def wait_for_event(self, event: str, timeout_s: float, **fields: object) -> dict[str, Any]:
        """Return the first JSON line with this ``event`` and these fields.

        Raises:
            AssertionError: the process ended before it.
            TimeoutError: it did not come in time.
        """

        def find() -> dict[str, Any]:
            ended = not self.running
            if ended:
                self._drain()
            for seen in self.events:
                if seen.get("event") == event and all(seen.get(key) == value for key, value in fields.items()):
                    return seen
            assert not ended, f"{self.argv} ended with {self._process.returncode} before {event!r}\n{self.text}"
            return {}

        return self._or_text(lambda: wait_until(find, timeout_s, f"the event {event!r} {fields or ''}"))

    def wait_for_line(self, part: str, timeout_s: float) -> str:
        """Return the first line of either output that contains ``part``; fails as `wait_for_event` does."""

        def find() -> str:
            ended = not self.running
            if ended:
                self._drain()
            for line in [*self.stdout, *self.stderr]:
                if part in line:
                    return line
            assert not ended, f"{self.argv} ended with {self._process.returncode} before {part!r}\n{self.text}"
            return ""

        return self._or_text(lambda: wait_until(find, timeout_s, f"a line with {part!r}"))

    def wait(self, timeout_s: float) -> int:
        """Return the exit code, negative for a signal.

        Raises:
            TimeoutError: it still runs after `PATIENCE` times ``timeout_s`` seconds; the message has its output.
        """
        limit_s = PATIENCE * timeout_s
        try:
            code = self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.argv} still runs after {limit_s:g} s\n{self.text}") from None
        self._drain()
        return code

    def signal(self, number: signal.Signals, group: bool = False) -> None:
        """Send a signal to the process, or to its process group, as Ctrl-C in a terminal does."""
        if group:
            os.killpg(self.pid, number)
        else:
            self._process.send_signal(number)

    def end(self) -> None:
        """Kill the process and everything that it started. Called at the end of every test.

        A variable in the environment identifies the processes: descendants may have other parents, groups and sessions.
        A process that was forked from the server shows the server's environment. Its session identifies it.
        """
        self._process.kill()  # without permission to read the environment the loop skips it, and wait() would hang
        guards = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) == self.pid or process.environ().get(MARK) == self._mark:
                    if any(word.endswith(GUARD) for word in process.cmdline()):
                        guards.append(process)
                    else:
                        process.kill()
        # A guard stops its server and exits when its owner is gone. A guard that is killed leaves the server running.
        _, left = psutil.wait_procs(guards, timeout=GUARD_PATIENCE_S)
        for guard in left:
            guard.kill()
        self._process.wait()
        self._drain()
        streams = (self._process.stdout, self._process.stderr)
        for reader, stream in zip(self._readers, streams, strict=True):
            if stream is not None and not reader.is_alive():  # close() would wait forever for a reader
                stream.close()

    @property
    def text(self) -> str:
        """The last lines of both outputs, for messages."""
        return "\n".join(["--- stdout", *self.stdout[-60:], "--- stderr", *self.stderr[-60:]])

    def _or_text(self, wait: Callable[[], T]) -> T:
        try:
            return wait()
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.text}") from None

    def _drain(self) -> None:
        """Let the readers reach the end. The timeout covers a descendant that keeps the pipe open."""
        for reader in self._readers:
            reader.join(5)

    @staticmethod
    def _read(stream: IO[str] | None, lines: list[str]) -> threading.Thread:
        assert stream is not None

        def read() -> None:
            try:
                for line in stream:
                    lines.append(line.rstrip("\n"))
            except ValueError:  # closed at the end of the test
                return

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        return reader


def _objects(lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith("{"):
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value


def pytest_configure() -> None:
    """Let a terminated test session clean up what it started: processes, servers, folders."""
    signal.signal(signal.SIGTERM, _leave)


def _leave(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second signal would interrupt the cleanup
    pytest.exit("terminated", returncode=143)


class Spawn:
    """Starts processes for a test, and ends those that still run."""

    def __init__(self) -> None:
        self._started: list[Running] = []

    def __call__(
        self,
        *arguments: str | Path,
        environment: Mapping[str, str] | None = None,
        program: str | Path = TUSSIS,
        cwd: Path | None = None,
        preloaded: Preloaded | None = None,
    ) -> Running:
        """Start `tussis` with these arguments, or another program."""
        running = Running([program, *arguments], environment or {}, cwd, preloaded)
        self._started.append(running)
        return running

    def end(self) -> None:
        """Kill the processes that still run."""
        for running in self._started:
            running.end()


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start processes that end at the end of the test at the latest."""
    spawn = Spawn()
    yield spawn
    spawn.end()
