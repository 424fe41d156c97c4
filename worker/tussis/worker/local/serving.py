"""A worker beside the embedded servers: the normal command under a guard, with its log in a file."""

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

#: Seconds from the start until every child has loaded the model. An idle machine takes eight.
_READY_TIMEOUT_S: Final = 180.0
_POLL_S: Final = 0.1
#: Bytes. A larger log file is deleted before the worker starts.
_LOG_LIMIT: Final = 5_000_000
#: Seconds that a stopping worker has to finish its recordings. A recording of the demo takes one or two.
_SOFT_SHUTDOWN_S: Final = 10
_SETTINGS: Final = {
    "TUSSIS_SOFT_SHUTDOWN_S": str(_SOFT_SHUTDOWN_S),
    # The messages that were in flight when a demo was killed are delivered again after this time.
    "TUSSIS_VISIBILITY_TIMEOUT_S": "10",
}


def run_dir(data: Path) -> Path:
    """The folder with the worker's state, which ``tussis health`` reads."""
    return data / "run"


class DemoWorker:
    """``tussis worker cpu`` beside the servers, from construction to :meth:`stop`. Raises :class:`ServerFailed`.

    Its log is ``NAME.log`` in ``data``; ``arguments`` are further arguments of the command.
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
        """Wait for ``worker_ready`` in its log. Raises :class:`ServerFailed` when it ends or takes too long."""
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not self.ready:
            self.check()
            if time.monotonic() > deadline:
                raise ServerFailed(f"the worker is not ready after {_READY_TIMEOUT_S:g} s; see {self.log}")
            time.sleep(_POLL_S)

    def check(self) -> None:
        """Raise :class:`ServerFailed` when it has ended."""
        if not self.running:
            raise ServerFailed(f"the worker ended: {self.last_words()}; see {self.log}")

    @property
    def ready(self) -> bool:
        """Whether it has been ready since its start."""
        return any(_event(line) == "worker_ready" for line in self._lines())

    @property
    def running(self) -> bool:
        """Whether it or one of its orphaned children runs."""
        return self._process.running

    def last_words(self) -> str:
        """Its last message."""
        return said_last(self._lines())

    def ask_to_stop(self) -> None:
        """Begin a clean stop without waiting; :meth:`stop` waits for its end."""
        self._process.ask_to_stop()

    def stop(self) -> None:
        """Stop it cleanly; return when its processes have ended."""
        self._process.stop()

    def _lines(self) -> list[str]:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace").splitlines()


def _event(line: str) -> str | None:
    """The name of the event in a line of the log; None for other lines, for instance incomplete ones."""
    if not line.startswith("{"):
        return None
    try:
        return str(json.loads(line).get("event"))
    except ValueError:
        return None
