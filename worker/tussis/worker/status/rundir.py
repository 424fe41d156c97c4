"""What a worker's processes tell each other, in a folder of small files: the parent reads it, probes may too.

A child that crashes leaves its files behind; they carry its process id, and the parent looks only at living ones.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from tussis.worker.atomic import replace_file


@dataclass(frozen=True)
class ChildReport:
    """What a child said of its start: ``ready`` with its model in ``message``, or ``refused`` with the reason."""

    pid: int
    state: str
    message: str = ""


@dataclass(frozen=True)
class AttemptNote:
    """Which attempt a child works on: written before its claim, removed after its end."""

    pid: int
    token: uuid.UUID
    job_id: str


@dataclass(frozen=True)
class DeviceReport:
    """What the device process said of itself, every second: ``loading``, ``ready``, or ``refused`` with the reason."""

    pid: int
    state: str
    message: str
    at: float
    """Seconds of the machine's monotonic clock."""


class Phase(StrEnum):
    """What the thread that consumes does."""

    STARTING = "starting"
    """Checks the deployment, fetches the model. It does not beat meanwhile."""
    LOADING = "loading"
    """Waits for the children to load the model."""
    CONNECTING = "connecting"
    """Has no connection to the broker and tries to get one. It does not beat meanwhile."""
    CONSUMING = "consuming"
    """Turns Celery's event loop."""


@dataclass(frozen=True)
class Beat:
    """The consuming thread's last word. Times are seconds of the machine's monotonic clock, here and below."""

    phase: Phase
    at: float


@dataclass(frozen=True)
class ParentStatus:
    """What the housekeeper sees of the worker, written every second."""

    at: float
    children: int
    ready: int
    broker_since: float | None
    """Since when the housekeeper's own connection to the broker works; None while it does not."""
    starving_since: float | None
    """Since when messages wait, children are free, and none is taken; None when that is not so."""


class RunDir:
    """The folder of one worker, ``tussis-`` something in TUSSIS_RUN_DIR."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def create(self, worker: str = "") -> None:
        """Make the folder, readable by its owner only, and hold its lock for as long as this process lives."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        _write(self.path / "worker", worker)

    @property
    def worker(self) -> str:
        """The worker's name."""
        return (self.path / "worker").read_text()

    @property
    def held(self) -> bool:
        """Whether a process of the worker lives: a worker that was killed leaves its folder behind."""
        try:
            lock = os.open(self.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # removed since it was listed
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    # --- a child's side ---

    def report(self, state: str, message: str = "") -> None:
        """Say how this process started."""
        report = ChildReport(os.getpid(), state, message)
        _write(self.path / f"child-{report.pid}.json", json.dumps(asdict(report)))

    def note_attempt(self, token: uuid.UUID, job_id: str) -> None:
        """Say which attempt this process is about to claim. Raises nothing, as :meth:`hold`: without the note its lease
        is not renewed."""
        with suppress(OSError):
            _write(self.path / f"attempt-{os.getpid()}", f"{token} {job_id}")

    def end_attempt(self) -> None:
        """Say that this process works on no attempt any more."""
        with suppress(OSError):
            (self.path / f"attempt-{os.getpid()}").unlink(missing_ok=True)

    def hold(self, reason: str) -> None:
        """Say that this process waits for something that only time or an operator mends.

        As with the other notes for probes, a disk that is full must not become a recording's fault: nothing is raised.
        """
        with suppress(OSError):
            _write(self.path / f"hold-{os.getpid()}", reason)

    def resume(self) -> None:
        """Say that the wait is over."""
        with suppress(OSError):
            (self.path / f"hold-{os.getpid()}").unlink(missing_ok=True)

    def stopping_for(self) -> float | None:
        """Seconds since the worker was told to stop; None while it was not."""
        try:
            return max(0.0, time.time() - (self.path / "stopping").stat().st_mtime)
        except FileNotFoundError:
            return None

    # --- the device process's side ---

    def report_device(self, state: str, message: str = "") -> None:
        """Say how the device process is. Raises nothing, as :meth:`hold`."""
        report = DeviceReport(os.getpid(), state, message, time.monotonic())
        with suppress(OSError):
            _write(self.path / "device.json", json.dumps(asdict(report)))

    # --- the parent's side ---

    def device(self) -> DeviceReport | None:
        """The device process's last word; None where there is none."""
        try:
            return DeviceReport(**json.loads((self.path / "device.json").read_text()))
        except FileNotFoundError:
            return None

    def forget_device(self) -> None:
        """Remove the last word of a device process that is gone."""
        (self.path / "device.json").unlink(missing_ok=True)

    def beat(self, phase: Phase) -> None:
        """Say that the consuming thread is there, and what it does. Raises nothing, as :meth:`hold`."""
        with suppress(OSError):
            _write(self.path / "beat", json.dumps(asdict(Beat(phase, time.monotonic()))))

    def write_status(self, status: ParentStatus) -> None:
        """Say what the housekeeper sees. Raises nothing, as :meth:`hold`."""
        with suppress(OSError):
            _write(self.path / "parent", json.dumps(asdict(status)))

    def last_beat(self) -> Beat | None:
        """The last beat; None before the first."""
        try:
            raw = json.loads((self.path / "beat").read_text())
        except FileNotFoundError:
            return None
        return Beat(Phase(raw["phase"]), raw["at"])

    def parent_status(self) -> ParentStatus | None:
        """What the housekeeper saw last; None before its first look."""
        try:
            return ParentStatus(**json.loads((self.path / "parent").read_text()))
        except FileNotFoundError:
            return None

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

    def attempts(self) -> dict[int, AttemptNote]:
        """The attempts that are noted, by process id; also those of processes that died in them."""
        notes = {}
        for file in self.path.glob("attempt-*"):
            try:
                token, job_id = file.read_text().split()
            except FileNotFoundError:
                continue
            pid = int(file.name.removeprefix("attempt-"))
            notes[pid] = AttemptNote(pid, uuid.UUID(token), job_id)
        return notes

    def forget_attempt(self, note: AttemptNote) -> None:
        """Remove the note of a process that is dead."""
        (self.path / f"attempt-{note.pid}").unlink(missing_ok=True)

    def forget(self, pid: int) -> None:
        """Remove what a dead process left behind."""
        (self.path / f"child-{pid}.json").unlink(missing_ok=True)
        (self.path / f"hold-{pid}").unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder and what is in it."""
        shutil.rmtree(self.path, ignore_errors=True)  # a child on its way out may still write
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def run_dirs(folder: Path) -> list[RunDir]:
    """The folders of workers below ``folder``, also those that dead ones left behind; by name."""
    found = []
    for path in sorted(folder.glob("tussis-*")):
        # Others' files and folders lie in /tmp too.
        if os.access(path / "worker", os.R_OK) and os.access(path / "lock", os.R_OK):
            found.append(RunDir(path))
    return found


def remove_leftovers(folder: Path) -> None:
    """Remove what workers that were killed left behind."""
    for run_dir in run_dirs(folder):
        if not run_dir.held:
            run_dir.remove()


def _write(path: Path, text: str) -> None:
    replace_file(path, text.encode())
