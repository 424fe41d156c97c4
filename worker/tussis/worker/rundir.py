"""What a worker's processes tell each other, in a folder of small files: the parent reads it, probes may too.

A child that crashes leaves its files behind; they carry its process id, and the parent looks only at living ones.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class ChildReport:
    """What a child said of its start: ``ready``, or ``refused`` with the reason in ``message``."""

    pid: int
    state: str
    message: str = ""


class RunDir:
    """The folder of one worker."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> None:
        """Make the folder, readable by its owner only."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)

    # --- a child's side ---

    def report(self, state: str, message: str = "") -> None:
        """Say how this process started."""
        report = ChildReport(os.getpid(), state, message)
        _write(self.path / f"child-{report.pid}.json", json.dumps(asdict(report)))

    def hold(self, reason: str) -> None:
        """Say that this process waits for something that only time or an operator mends."""
        _write(self.path / f"hold-{os.getpid()}", reason)

    def resume(self) -> None:
        """Say that the wait is over."""
        (self.path / f"hold-{os.getpid()}").unlink(missing_ok=True)

    def stopping_for(self) -> float | None:
        """Seconds since the worker was told to stop; None while it was not."""
        try:
            return max(0.0, time.time() - (self.path / "stopping").stat().st_mtime)
        except FileNotFoundError:
            return None

    # --- the parent's side ---

    def stop(self) -> None:
        """Tell the children that the worker stops. The first call counts."""
        if self.stopping_for() is None:
            _write(self.path / "stopping", "")

    def children(self) -> dict[int, ChildReport]:
        """The reports of all processes that made one, by process id."""
        reports = {}
        for file in self.path.glob("child-*.json"):
            report = ChildReport(**json.loads(file.read_text()))
            reports[report.pid] = report
        return reports

    def holds(self) -> dict[int, str]:
        """Why which process waits, by process id."""
        reasons = {}
        for file in self.path.glob("hold-*"):
            try:
                reasons[int(file.name.removeprefix("hold-"))] = file.read_text()
            except FileNotFoundError:
                continue
        return reasons

    def forget(self, pid: int) -> None:
        """Remove what a dead process left behind."""
        (self.path / f"child-{pid}.json").unlink(missing_ok=True)
        (self.path / f"hold-{pid}").unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder and what is in it."""
        for file in self.path.iterdir():
            file.unlink(missing_ok=True)
        self.path.rmdir()


def _write(path: Path, text: str) -> None:
    """Replace the file in one step: a reader never sees half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)
