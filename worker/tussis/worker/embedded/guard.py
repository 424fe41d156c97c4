"""Run one server and see that it never outlives its owner. Run as a script, with nothing but the standard library.

The owner starts ``python -I -S guard.py NAME FOLDER`` and writes one line of JSON, an `Order`, to its standard
input. The guard answers ``pid N`` once the server runs, or ``error TEXT``, and ``exit CODE`` at the end. It stops the
server

- on the word ``stop`` and on the end of its input, which is what the owner's death is, by whatever signal;
- on the word ``kill``: SIGKILL at once;
- when it is no longer its owner's child (a fork of the owner may hold the pipe open);
- on its own SIGTERM.

SIGKILL of the guard itself reaches the server through its parent-death signal, on Linux. That alone would not do:
a change of uid clears it, so it is set after the change, and other systems have none.
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
#: How often to look whether the owner is still the parent, in seconds. The pipe tells at once in all but odd cases.
PARENT_CHECK_S = 1.0
#: How long the server's own children may take to leave after it, in seconds.
CHILDREN_GRACE_S = 5.0


class Order(NamedTuple):
    """What to run, and how to end it."""

    argv: list[str]
    cwd: str
    environment: dict[str, str]
    #: The account to run as, None for the guard's own.
    user: int | None
    group: int | None
    #: Signals by name, each with the seconds to wait for its effect; SIGKILL follows the last.
    stop: list[tuple[str, float]]
    #: What the kernel sends the server when the guard dies.
    death_signal: str
    #: Files to remove when the server is gone.
    remove: list[str]


def say(line: str) -> None:
    """Tell the owner, who may be gone."""
    with contextlib.suppress(OSError):  # nobody listens any more; the server is stopped all the same
        os.write(1, f"{line}\n".encode())


def prctl(option: int, value: int) -> None:
    """Call prctl(2) where there is one."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def in_child(guard: int, death_signal: int) -> Callable[[], None]:
    """What the child does between fork and exec, after its change of uid."""

    def prepare() -> None:
        prctl(PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != guard:  # the guard died before the line above
            os._exit(1)

    return prepare


class Guard:
    """One server's life, from start to the last of its processes."""

    def __init__(self, order: Order, owner: int) -> None:
        self._order = order
        self._owner = owner
        self._wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(self._wake_read, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self._asked_to_stop = False
        # Handlers, not SIG_IGN: the server would inherit that through exec.
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
        order = self._order
        return subprocess.Popen(
            order.argv,
            cwd=order.cwd,
            env=order.environment,
            stdin=subprocess.DEVNULL,
            stdout=2,  # the guard's standard error is the server's log file
            stderr=2,
            start_new_session=True,
            close_fds=False,  # the folder's lock stays held for as long as any of the server's processes lives
            user=order.user,
            group=order.group,
            extra_groups=None if order.user is None else [],
            preexec_fn=in_child(os.getpid(), signal.Signals[order.death_signal]),
        )

    def run(self) -> int:
        """Serve until the server is gone; the server's exit code, negative for a signal."""
        say(f"pid {self._server.pid}")
        while (exit_code := self._reap()) is None:
            word = self._wait(PARENT_CHECK_S)
            if word == "kill":
                self._server_signal(signal.SIGKILL)
            elif word == "stop" or self._asked_to_stop or os.getppid() != self._owner:
                self._stop()
        self._end_children()
        for path in self._order.remove:
            Path(path).unlink(missing_ok=True)
        say(f"exit {exit_code}")
        return exit_code

    def _stop(self) -> None:
        for name, grace in [*self._order.stop, ("SIGKILL", 60.0)]:
            self._server_signal(signal.Signals[name])
            self._server_signal(signal.SIGCONT)  # a frozen server would never see the signal
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
        """Wait for a word of the owner, a signal or the time; the word."""
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
        """Collect what has ended: the server, and children of it that became ours."""
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
        # Not reaped yet, so its pid is its own.
        if self._exit_code is None:
            os.kill(self._server.pid, number)

    def _end_children(self) -> None:
        """Wait for the children that the server left behind, and end those that stay."""
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
        """The pids of this process' children, Linux; elsewhere orphans go to init and none are left here."""
        try:
            return [int(pid) for pid in Path("/proc/thread-self/children").read_text().split()]
        except OSError:
            return []


def main() -> int:
    """Read the order, run the server, and leave with 0 whatever became of it."""
    owner = os.getppid()
    with open(0, "rb", buffering=0, closefd=False) as orders:  # unbuffered: the words that follow stay in the pipe
        line = orders.readline()
    if not line:  # the owner died first
        return 0
    try:
        guard = Guard(Order(**json.loads(line)), owner)
    except (OSError, subprocess.SubprocessError) as error:
        say(f"error {error}")
        return 1
    guard.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
