"""The owner's side of `guard`: a server process that ends with its owner."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tussis.shared.errors import ServerFailed
from tussis.worker.embedded import guard
from tussis.worker.embedded.accounts import Account

#: Seconds that the guard may take to start the server. A loaded machine needs a few tenths of a second.
SPAWN_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class StopStep:
    """The name of a signal, and the seconds to wait for its effect before the next one."""

    signal: str
    grace_s: float


@dataclass(frozen=True)
class Command:
    """What to run and how to stop it."""

    name: str
    argv: tuple[str, ...]
    cwd: Path
    #: Standard output and standard error are appended here.
    log: Path
    stop: tuple[StopStep, ...]
    #: The signal that the kernel sends to the server when its guard is killed.
    death_signal: str
    account: Account | None = None
    #: Files to remove after the server has ended.
    remove: tuple[Path, ...] = ()
    #: Variables in addition to the few that every command gets. None comes from the shell.
    environment: Mapping[str, str] = field(default_factory=dict)

    def for_guard(self) -> guard.GuardCommand:
        """The command as the guard reads it. The server gets this environment only, and no setting of the shell."""
        return guard.GuardCommand(
            argv=list(self.argv),
            cwd=str(self.cwd),
            environment={"PATH": os.defpath, "HOME": str(self.cwd), "LC_ALL": "C", "TZ": "UTC", **self.environment},
            user=None if self.account is None else self.account.uid,
            group=None if self.account is None else self.account.gid,
            stop=[(step.signal, step.grace_s) for step in self.stop],
            death_signal=self.death_signal,
            remove=[str(path) for path in self.remove],
        )


class GuardedProcess:
    """One running command under its guard.

    Args:
        command: what to run.
        keep_open: a file descriptor that the guard and the server inherit (the folder's lock).

    Raises:
        ServerFailed: the command could not be started.
    """

    def __init__(self, command: Command, keep_open: int) -> None:
        self._name = command.name
        self._stop_bound_s = sum(step.grace_s for step in command.stop) + guard.CHILDREN_GRACE_S + 10.0
        with command.log.open("ab") as log:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, command.name, str(command.cwd)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                cwd="/",
                start_new_session=True,  # Ctrl-C goes to the terminal's foreground group; only the owner handles it
                pass_fds=(keep_open,),
            )
        try:
            self._send(json.dumps(command.for_guard()._asdict()))
            word, _, rest = self._answer().partition(" ")
        except BaseException:
            self._close()
            raise
        if word != "pid":
            self._close()
            raise ServerFailed(f"{command.name} did not start: {rest or f'see {command.log}'}")
        #: The server's own process id.
        self.pid = int(rest)

    @property
    def running(self) -> bool:
        """Whether the server or one of its orphaned children still runs."""
        return self._guard.poll() is None

    def ask_to_stop(self) -> None:
        """Begin a clean stop and return at once."""
        self._send("stop")

    def stop(self) -> None:
        """Stop it cleanly, with SIGKILL after its last stop step; return when its processes have ended."""
        self.ask_to_stop()
        self.wait(self._stop_bound_s)

    def kill(self) -> None:
        """Send SIGKILL; return when its processes have ended."""
        self._send("kill")
        self.wait(guard.CHILDREN_GRACE_S + 10.0)

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end; return its exit code (negative for a signal), or None when its guard was killed.

        Raises:
            ServerFailed: it still runs after ``timeout_s`` seconds.
        """
        try:
            self._guard.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ServerFailed(f"{self._name} (process {self.pid}) still runs after {timeout_s:g} s") from None
        word, _, code = self._answer().partition(" ")
        self._close()
        if word == "exit":
            return int(code)
        self._await_orphan(timeout_s)
        return None

    def _await_orphan(self, timeout_s: float) -> None:
        """Wait for a server whose guard was killed: it got its death signal and is not a child of this process."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.02)
        raise ServerFailed(f"{self._name} (process {self.pid}) still runs after its guard was killed")

    def _send(self, line: str) -> None:
        assert self._guard.stdin is not None
        if self._guard.stdin.closed:
            return
        with contextlib.suppress(BrokenPipeError):  # the guard has ended
            self._guard.stdin.write(f"{line}\n".encode())

    def _answer(self) -> str:
        """The guard's next line; empty after its last line, or after SPAWN_TIMEOUT_S."""
        assert self._guard.stdout is not None
        if self._guard.stdout.closed:
            return ""
        line = b""
        deadline = time.monotonic() + SPAWN_TIMEOUT_S
        poll = select.poll()  # not select(): the owner may have more than 1024 files open
        poll.register(self._guard.stdout, select.POLLIN)
        while not line.endswith(b"\n"):
            ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not ready or not (byte := self._guard.stdout.read(1)):
                break
            line += byte
        return line.decode(errors="replace").strip()

    def _close(self) -> None:
        """Close the pipes to the guard and wait for it. The guard stops the server if it still runs."""
        for pipe in (self._guard.stdin, self._guard.stdout):
            if pipe is not None:
                pipe.close()
        self._guard.wait()
