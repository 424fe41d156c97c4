"""Chooses the model of ``tussis demo`` and ``tussis up``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tussis.shared.errors import ServerFailed
from tussis.worker.detector.shipped import default_model
from tussis.worker.embedded.process import Command, GuardedProcess, StopStep
from tussis.worker.embedded.servers import Servers
from tussis.worker.local.surroundings import last_error_line, tussis_command, writing

#: With this seed, of the few tried, the answers differ between the synthetic recordings.
SEED: Final = 2
#: Seconds that an export may take. On an idle machine it takes ten.
_TIMEOUT_S: Final = 180.0


@dataclass
class ChosenModel:
    """A model that exists or is being exported. ``random``: it has random weights, and its answers mean nothing."""

    path: Path
    random: bool
    log: Path
    making: GuardedProcess | None = None

    def wait(self) -> Path:
        """Wait for the export, if there is one; return the path of the model. Raises :class:`ServerFailed`."""
        if self.making is not None and self.making.wait(_TIMEOUT_S) != 0:
            said = last_error_line(self.log.read_text(errors="replace").splitlines())
            raise ServerFailed(f"the export of the model failed: {said}; see {self.log}")
        return self.path

    def stop(self) -> None:
        """Stop the export if it still runs."""
        if self.making is not None:
            self.making.stop()


def choose_model(given: Path | None, data: Path, servers: Servers) -> ChosenModel:
    """The model given, else the one that Tussis ships, else one with random weights.

    The last is exported in the background, once for the data folder. Raises :class:`ServerFailed` and the errors of
    :func:`tussis.worker.local.surroundings.writing`.
    """
    log = data / "model.log"
    chosen = given or default_model()
    if chosen is not None:
        return ChosenModel(chosen.absolute(), False, log)
    path = data / "models" / f"random-{SEED}.onnx"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    # The manifest is written last.
    if path.with_suffix(".json").exists() and path.exists():
        return ChosenModel(path, True, log)
    command = Command(
        name="export",
        argv=(tussis_command(), "models", "export", "--random", str(SEED), str(path)),
        cwd=data,
        log=log,
        stop=(StopStep("SIGTERM", 2.0),),
        death_signal="SIGKILL",
        environment=os.environ,
    )
    return ChosenModel(path, True, log, servers.run_beside(command))
