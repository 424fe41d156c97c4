"""Run one server and stop it when its owner ends. This file runs as a script and uses only the standard library.

The owner starts ``python -I -S guard.py NAME FOLDER`` and writes one line of JSON, a `GuardCommand`, to its standard
input. The guard writes ``pid N`` when the server runs, or ``error TEXT`` when it cannot be started, and ``exit CODE``
at the end. It stops the server

- when it reads ``stop``, and at the end of its input: the pipe closes when the owner dies, by any signal;
- when it reads ``kill``, with SIGKILL at once;
- when the owner is no longer its parent process (a fork of the owner may hold the pipe open);
- when it receives SIGTERM.

If the guard itself is killed with SIGKILL, the kernel sends the server its parent-death signal, on Linux. A change of
uid clears that signal, so it is set after the change. Other systems do not have it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
#: Seconds between two checks that the owner is still the parent. Usually the closed pipe shows the owner's end at once.
PARENT_CHECK_S = 1.0
#: Seconds that the server's own children may take to end after it.
CHILDREN_GRACE_S = 5.0


class GuardCommand(NamedTuple):
    """What to run, and how to stop it."""

    argv: list[str]
    cwd: str
    environment: dict[str, str]
    #: The uid to run as; None for the guard's own account.
    user: int | None
    group: int | None
    #: Names of signals, each with the seconds to wait for its effect. SIGKILL follows the last.
    stop: list[tuple[str, float]]
    #: The signal that the kernel sends to the server when the guard dies.
    death_signal: str
    #: Files to remove after the server has ended.
    remove: list[str]


def say(line: str) -> None:
    """Write a line to the owner, which may have ended."""
    with contextlib.suppress(OSError):  # the owner has ended; the guard still stops the server
        os.write(1, f"{line}\n".encode())


def prctl(option: int, value: int) -> None:
    """Call prctl(2) on Linux; do nothing on other systems."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def in_child(guard: int, death_signal: int) -> Callable[[], None]:
    """The function that the child runs between fork and exec, after its change of uid."""

    def prepare() -> None:
        prctl(PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != guard:  # the guard died before the line above
            os._exit(1)

    return prepare


class Guard:
    """Runs one server from its start to the end of its last process."""

    def __init__(self, command: GuardCommand, owner: int) -> None:
        self._command = command
        self._owner = owner
        self._wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(self._wake_read, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self._asked_to_stop = False
        # Handlers, not SIG_IGN: the server would inherit SIG_IGN through exec.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        self._server = self._spawn()
        self._exit_code: int | None = None
        self._input_open = True

    def _on_sigterm(self, *_: object) -> None:
        self._asked_to_stop = True

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = self._command
        return subprocess.Popen(
            command.argv,
            cwd=command.cwd,
            env=command.environment,
            stdin=subprocess.DEVNULL,
            stdout=2,  # the guard's standard error is the server's log file
            stderr=2,
            start_new_session=True,
            close_fds=False,  # every process of the server inherits the lock of the folder and holds it until it ends
            user=command.user,
            group=command.group,
            extra_groups=None if command.user is None else [],
            preexec_fn=in_child(os.getpid(), signal.Signals[command.death_signal]),
        )

    def run(self) -> int:
        """Run until the server has ended; return its exit code, negative for a signal."""
        say(f"pid {self._server.pid}")
        while (exit_code := self._reap()) is None:
            word = self._wait(PARENT_CHECK_S)
            if word == "kill":
                self._server_signal(signal.SIGKILL)
            elif word == "stop" or self._asked_to_stop or os.getppid() != self._owner:
                self._stop()
        self._end_children()
        for path in self._command.remove:
            Path(path).unlink(missing_ok=True)
        say(f"exit {exit_code}")
        return exit_code

    def _stop(self) -> None:
        for name, grace in [*self._command.stop, ("SIGKILL", 60.0)]:
            self._server_signal(signal.Signals[name])
            self._server_signal(signal.SIGCONT)  # a stopped process does not handle the signal
            deadline = time.monotonic() + grace
            while self._reap() is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                if self._wait(left) == "kill":
                    self._server_signal(signal.SIGKILL)
            else:
                return

    def _wait(self, seconds: float) -> str | None:
        """Wait for a command of the owner, a signal, or the timeout; return ``stop``, ``kill``, or None."""
        inputs = [self._wake_read, 0] if self._input_open else [self._wake_read]
        ready, _, _ = select.select(inputs, [], [], seconds)
        if self._wake_read in ready:
            self._drain()
        if 0 not in ready:
            return None
        words = os.read(0, 4096).decode().split()
        if not words:
            self._input_open = False
            return "stop"
        return "kill" if "kill" in words else "stop"

    def _reap(self) -> int | None:
        """Reap ended processes: the server, and its orphaned children. Return the server's exit code if it ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == self._server.pid:
                self._exit_code = os.waitstatus_to_exitcode(status)
                self._server.returncode = self._exit_code
        return self._exit_code

    def _server_signal(self, number: int) -> None:
        # The server is not reaped yet, so no other process can have its pid.
        if self._exit_code is None:
            os.kill(self._server.pid, number)

    def _end_children(self) -> None:
        """Wait for the orphaned children of the server; kill those still running after CHILDREN_GRACE_S."""
        deadline = time.monotonic() + CHILDREN_GRACE_S
        while children := self._children():
            if time.monotonic() > deadline:
                for pid in children:
                    os.kill(pid, signal.SIGKILL)
            select.select([self._wake_read], [], [], 0.1)
            self._drain()
            self._reap()

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    @staticmethod
    def _children() -> list[int]:
        """The pids of this process's children on Linux. On other systems init adopts orphans; the list is empty."""
        try:
            return [int(pid) for pid in Path("/proc/thread-self/children").read_text().split()]
        except OSError:
            return []


def main() -> int:
    """Read the command and run the server. Return 1 when the server could not be started, else 0."""
    owner = os.getppid()
    with open(0, "rb", buffering=0, closefd=False) as commands:  # unbuffered: the next commands stay in the pipe
        line = commands.readline()
    if not line:  # the owner died first
        return 0
    try:
        guard = Guard(GuardCommand(**json.loads(line)), owner)
    except (OSError, subprocess.SubprocessError) as error:
        say(f"error {error}")
        return 1
    guard.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
