"""A worker that runs beside the embedded servers: the normal command, with its log in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tussis.worker.embedded.ports import LOOPBACK
from tussis.worker.embedded.servers import Servers
from tussis.worker.local.database import worker_endpoints
from tussis.worker.local.running_program import RunningProgram
from tussis.worker.local.surroundings import tussis_command

#: Bytes. A larger log file is deleted before the worker starts.
_LOG_LIMIT: Final = 5_000_000
#: Seconds that a stopping worker has to finish its recordings. A recording of the demo takes one or two.
_SOFT_SHUTDOWN_S: Final = 10
_SETTINGS: Final = {
    "TUSSIS_SOFT_SHUTDOWN_S": str(_SOFT_SHUTDOWN_S),
    # The messages that were in flight when a demo was killed are delivered again after this time.
    "TUSSIS_VISIBILITY_TIMEOUT_S": "10",
    # Metrics need no login. The default is for containers: every address.
    "TUSSIS_METRICS_HOST": LOOPBACK,
}

TUNABLES: Final = "GLIBC_TUNABLES"
HUGE_PAGES: Final = "glibc.malloc.hugetlb=1"
"""glibc asks the kernel for huge pages, as in the images. docs/performance.md has what a small model gains."""


class RunningWorker(RunningProgram):
    """A worker beside the servers, from construction to :meth:`stop`. Its state is in the folder ``run_dir``.

    The other arguments are those of :class:`RunningProgram`.
    """

    def __init__(
        self,
        servers: Servers,
        data: Path,
        name: str,
        argv: Sequence[str],
        *,
        run_dir: Path,
        environment: Mapping[str, str],
        stop_s: float = 30.0,
        death_signal: str = "SIGKILL",
    ) -> None:
        self.run_dir = run_dir
        super().__init__(
            servers,
            data,
            name,
            argv,
            environment={
                TUNABLES: os.environ.get(TUNABLES, HUGE_PAGES),
                **environment,
                "TUSSIS_RUN_DIR": str(run_dir),
            },
            stop_s=stop_s,
            death_signal=death_signal,
        )

    @property
    def ready(self) -> bool:
        """Whether it has been ready since its start: every child has loaded the model."""
        return bool(self.events("worker_ready"))

    def wait_ready(self) -> None:
        """Wait until it is ready. Raises :class:`ServerFailed` when it ends or takes too long."""
        self.wait(lambda: self.ready)

    def events(self, name: str) -> list[Mapping[str, Any]]:
        """The events of this name in its log since its start."""
        return [event for event in map(event_of, self.lines()) if event.get("event") == name]


def event_of(line: str) -> Mapping[str, Any]:
    """The event in a line of a worker's log; empty for other lines, for instance incomplete ones."""
    if not line.startswith("{"):
        return {}
    try:
        event: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}
    return event


def worker_command(device: str, model: Path, children: int, *arguments: str) -> tuple[str, ...]:
    """The command line of ``tussis worker cpu`` or ``gpu``. Raises :class:`NotInstalled`."""
    words = ("worker", device, "--concurrency", str(children), "--model", str(model))
    return (tussis_command(), *words, *arguments)


def local_run_dir(data: Path) -> Path:
    """The folder with the state of local workers, which ``tussis health`` reads."""
    return data / "run"


def start_local_worker(
    servers: Servers, data: Path, model: Path, children: int, name: str = "worker", arguments: Sequence[str] = ()
) -> RunningWorker:
    """Start the CPU worker of ``tussis demo`` or ``tussis up``. It finishes its recordings when its owner is killed.

    Raises :class:`ServerFailed` and :class:`NotInstalled`.
    """
    log = data / f"{name}.log"
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.unlink()
    return RunningWorker(
        servers,
        data,
        name,
        worker_command("cpu", model, children, *arguments),
        run_dir=local_run_dir(data),
        environment={**worker_endpoints(servers.endpoints).environment(), **_SETTINGS},
        stop_s=_SOFT_SHUTDOWN_S + 10.0,
        death_signal="SIGTERM",
    )
