"""A worker beside the embedded servers: the ordinary command, under a guard, its log in a file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tussis.shared.errors import ServerFailed
from tussis.worker.embedded.process import Command, StopStep
from tussis.worker.embedded.servers import Servers
from tussis.worker.local.surroundings import said_last, tussis_command

#: Seconds from the start until every child has loaded the model; a quiet machine takes eight.
_READY_TIMEOUT_S: Final = 180.0
_POLL_S: Final = 0.1
#: A log over this size begins anew, bytes.
_LOG_LIMIT: Final = 5_000_000
#: A recording of the demo takes a second or two; a worker that is told to stop finishes it.
_SOFT_SHUTDOWN_S: Final = 10
_SETTINGS: Final = {
    "TUSSIS_SOFT_SHUTDOWN_S": str(_SOFT_SHUTDOWN_S),
    # What a killed demo had in work is free again for the next one this soon.
    "TUSSIS_VISIBILITY_TIMEOUT_S": "10",
}


def run_dir(data: Path) -> Path:
    """Where the worker keeps what ``tussis health`` reads."""
    return data / "run"


class DemoWorker:
    """``tussis worker cpu`` beside the servers, from construction to :meth:`stop`. Raises :class:`ServerFailed`.

    Its log is ``NAME.log`` in ``data``; ``arguments`` are more of the command's.
    """

    def __init__(
        self,
        servers: Servers,
        data: Path,
        model: Path,
        children: int,
        name: str = "worker",
        arguments: Sequence[str] = (),
    ) -> None:
        self.log = data / f"{name}.log"
        self.children = children
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
            self.log.unlink()
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        command = Command(
            name=name,
            argv=(tussis_command(), "worker", "cpu", "--concurrency", str(children), "--model", str(model), *arguments),
            cwd=data,
            log=self.log,
            stop=(StopStep("SIGTERM", _SOFT_SHUTDOWN_S + 10.0),),
            death_signal="SIGTERM",
            environment={
                **os.environ,
                **servers.endpoints.environment(),
                **_SETTINGS,
                "TUSSIS_RUN_DIR": str(run_dir(data)),
            },
        )
        self._process = servers.run_beside(command)

    def wait_ready(self) -> None:
        """Wait for ``worker_ready`` in its log. Raises :class:`ServerFailed` when it ends, or takes too long."""
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not self.ready:
            self.check()
            if time.monotonic() > deadline:
                raise ServerFailed(f"the worker is not ready after {_READY_TIMEOUT_S:g} s; see {self.log}")
            time.sleep(_POLL_S)

    def check(self) -> None:
        """Raises :class:`ServerFailed` when it has ended."""
        if not self.running:
            raise ServerFailed(f"the worker ended: {self.last_words()}; see {self.log}")

    @property
    def ready(self) -> bool:
        """Whether it was ready at some time since its start."""
        return any(_event(line) == "worker_ready" for line in self._lines())

    @property
    def running(self) -> bool:
        """Whether it, or a process that it left behind, runs."""
        return self._process.running

    def last_words(self) -> str:
        """What it said last."""
        return said_last(self._lines())

    def ask_to_stop(self) -> None:
        """Begin a clean stop without waiting; :meth:`stop` waits for its end."""
        self._process.ask_to_stop()

    def stop(self) -> None:
        """Stop it cleanly; return when its processes are gone."""
        self._process.stop()

    def _lines(self) -> list[str]:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace").splitlines()


def _event(line: str) -> str | None:
    """The name of the event in a line of the log; None for other lines, half written ones among them."""
    if not line.startswith("{"):
        return None
    try:
        return str(json.loads(line).get("event"))
    except ValueError:
        return None
