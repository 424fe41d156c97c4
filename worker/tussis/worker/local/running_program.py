"""A program that runs beside the embedded servers: it ends with this process, and its output is in a log file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tussis.shared.errors import ServerFailed
from tussis.worker.embedded.process import Command, StopStep
from tussis.worker.embedded.servers import Servers
from tussis.worker.local.surroundings import last_error_line

#: Seconds from the start until a program is ready. A worker on an idle machine takes eight.
READY_TIMEOUT_S: Final = 180.0
_POLL_S: Final = 0.05


class RunningProgram:
    """A program beside the servers, from construction to :meth:`stop`.

    Args:
        servers: the running servers. The program gets their addresses as settings.
        data: the folder of its log ``NAME.log``.
        name: its name in messages.
        argv: its command line.
        cwd: its working directory; ``data`` when None.
        environment: variables in addition to those of this process and of the servers.
        stop_s: seconds that it may take to end after SIGTERM.
        death_signal: the signal that it gets when this process is killed.

    Raises:
        ServerFailed: it could not be started.
    """

    def __init__(
        self,
        servers: Servers,
        data: Path,
        name: str,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str],
        stop_s: float = 30.0,
        death_signal: str = "SIGKILL",
    ) -> None:
        self.name = name
        self.log = data / f"{name}.log"
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        command = Command(
            name=name,
            argv=tuple(argv),
            cwd=cwd or data,
            log=self.log,
            stop=(StopStep("SIGTERM", stop_s),),
            death_signal=death_signal,
            environment={**os.environ, **servers.endpoints.environment(), **environment},
        )
        self.process = servers.run_beside(command)

    @property
    def running(self) -> bool:
        """Whether it or one of its orphaned children runs."""
        return self.process.running

    def check(self) -> None:
        """Raise :class:`ServerFailed` when it has ended."""
        if not self.running:
            raise ServerFailed(f"the {self.name} ended: {self.last_message()}; see {self.log}")

    def wait(self, ready: Callable[[], bool], timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait for a condition. Raises :class:`ServerFailed` after ``timeout_s``, or when the program ends."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise ServerFailed(f"the {self.name} is not ready after {timeout_s:g} s; see {self.log}")
            time.sleep(_POLL_S)

    def lines(self) -> list[str]:
        """The lines of its log since its start."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace").splitlines()

    def last_message(self) -> str:
        """Its error message, or its last line."""
        return last_error_line(self.lines())

    def ask_to_stop(self) -> None:
        """Begin a clean stop without waiting; :meth:`stop` waits for its end."""
        self.process.ask_to_stop()

    def stop(self) -> None:
        """Stop it cleanly; return when its processes have ended."""
        self.process.stop()


def stop_all(programs: Sequence[RunningProgram]) -> None:
    """Stop programs at the same time; return when all have ended."""
    for program in programs:
        program.ask_to_stop()
    for program in programs:
        program.stop()
