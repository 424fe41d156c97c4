"""The run directory: small files with the status of a worker's processes, read by the parent and the probes.

The files of a crashed child remain. They contain its process id, and the parent considers only living processes.
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
    """A child's report of its start: ``ready`` with its model in ``message``, or ``refused`` with the reason."""

    pid: int
    state: str
    message: str = ""


@dataclass(frozen=True)
class AttemptNote:
    """The attempt that a child works on. Written before the claim, removed after the end of the attempt."""

    pid: int
    token: uuid.UUID
    job_id: str


@dataclass(frozen=True)
class DeviceReport:
    """A report of the device process, every second: ``loading``, ``ready``, or ``refused`` with the reason."""

    pid: int
    state: str
    message: str
    at: float
    """Seconds of the machine's monotonic clock."""
    provider: str = ""
    """Execution provider of onnxruntime, when ready."""
    device: str = ""
    """Name of the device, when ready."""


class Phase(StrEnum):
    """The activity of the consuming thread."""

    STARTING = "starting"
    """Checks the deployment and fetches the model. One beat at the start of this phase."""
    LOADING = "loading"
    """Waits for the children to load the model."""
    CONNECTING = "connecting"
    """Tries to connect to the broker. One beat at the start of this phase."""
    CONSUMING = "consuming"
    """Runs Celery's event loop."""


@dataclass(frozen=True)
class Beat:
    """The last beat of the consuming thread. Times here and in :class:`ParentStatus` are monotonic clock seconds."""

    phase: Phase
    at: float


@dataclass(frozen=True)
class ParentStatus:
    """The housekeeper's view of the worker, written every second."""

    at: float
    children: int
    ready: int
    broker_since: float | None
    """The time since which the housekeeper's own connection to the broker works. None while it does not work."""
    starving_since: float | None
    """The time since which messages wait and children are free but none is taken. None otherwise."""
    paused: str = ""
    """The paused queues, with commas between them."""


class RunDir:
    """The folder of one worker: ``tussis-*`` in TUSSIS_RUN_DIR."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Text: each recording uses these paths several times, and making one with pathlib takes longer than its use.
        self._stopping = f"{path}/stopping"
        self._attempt = f"{path}/attempt-"
        self._lock: int | None = None

    def create(self, worker: str = "") -> None:
        """Make the folder, readable only by its owner, and hold its lock until this process ends."""
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
        """Whether a process of the worker is alive. The folder of a killed worker remains."""
        try:
            lock = os.open(self.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # removed after it was listed
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
        """Report how this process started."""
        report = ChildReport(os.getpid(), state, message)
        _write(self.path / f"child-{report.pid}.json", json.dumps(asdict(report)))

    def note_jail(self, missing: str) -> None:
        """Record what the jail of the decoder lacks in this process's worker; nothing if it is empty. Raises nothing.

        All children of a worker have the same: the last note counts.
        """
        with suppress(OSError):
            if missing:
                _write(self.path / "jail", missing)
            else:
                (self.path / "jail").unlink(missing_ok=True)

    def note_attempt(self, token: uuid.UUID, job_id: str) -> None:
        """Record the attempt that this process is about to claim. Raises nothing, as :meth:`hold`.

        Without the note the lease is not renewed. Every message writes one, so it is written in place: a reader skips
        a note without its end of line.
        """
        with suppress(OSError):
            note = os.open(self._own_attempt(), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(note, f"{token} {job_id}\n".encode())
            finally:
                os.close(note)

    def end_attempt(self) -> None:
        """Record that this process works on no attempt."""
        with suppress(OSError):
            os.unlink(self._own_attempt())

    def _own_attempt(self) -> str:
        return f"{self._attempt}{os.getpid()}"

    def hold(self, reason: str) -> None:
        """Record that this process waits, for something that passes by itself or that an operator must fix.

        Raises nothing, as the other notes for probes: a full disk must not make a recording fail.
        """
        with suppress(OSError):
            _write(self.path / f"hold-{os.getpid()}", reason)

    def resume(self) -> None:
        """Record that the wait is over."""
        with suppress(OSError):
            (self.path / f"hold-{os.getpid()}").unlink(missing_ok=True)

    def stopping_for(self) -> float | None:
        """Seconds since the worker was told to stop. None before that."""
        try:
            return max(0.0, time.time() - os.stat(self._stopping).st_mtime)
        except FileNotFoundError:
            return None

    # --- the device process's side ---

    def report_device(self, state: str, message: str = "", provider: str = "", device: str = "") -> None:
        """Report the state of the device process. Raises nothing, as :meth:`hold`."""
        report = DeviceReport(os.getpid(), state, message, time.monotonic(), provider, device)
        with suppress(OSError):
            _write(self.path / "device.json", json.dumps(asdict(report)))

    # --- the parent's side ---

    def jail_lacks(self) -> str:
        """What the jail of the decoder lacks, as one line; empty if nothing."""
        try:
            return (self.path / "jail").read_text()
        except FileNotFoundError:
            return ""

    def device(self) -> DeviceReport | None:
        """The last report of the device process. None when there is none."""
        try:
            return DeviceReport(**json.loads((self.path / "device.json").read_text()))
        except FileNotFoundError:
            return None

    def forget_device(self) -> None:
        """Remove the last report of a device process that has ended."""
        (self.path / "device.json").unlink(missing_ok=True)

    def beat(self, phase: Phase) -> None:
        """Record that the consuming thread runs, and its phase. Raises nothing, as :meth:`hold`."""
        with suppress(OSError):
            _write(self.path / "beat", json.dumps(asdict(Beat(phase, time.monotonic()))))

    def write_status(self, status: ParentStatus) -> None:
        """Record the housekeeper's view. Raises nothing, as :meth:`hold`."""
        with suppress(OSError):
            _write(self.path / "parent", json.dumps(asdict(status)))

    def note_active(self, text: str | None) -> None:
        """Record that another model than that of this worker is active. None: it is the same. Raises nothing."""
        with suppress(OSError):
            if text is None:
                (self.path / "active").unlink(missing_ok=True)
            else:
                _write(self.path / "active", text)

    def not_active(self) -> str:
        """The text of :meth:`note_active`, or an empty text."""
        try:
            return (self.path / "active").read_text()
        except FileNotFoundError:
            return ""

    def last_beat(self) -> Beat | None:
        """The last beat. None before the first one."""
        try:
            raw = json.loads((self.path / "beat").read_text())
        except FileNotFoundError:
            return None
        return Beat(Phase(raw["phase"]), raw["at"])

    def parent_status(self) -> ParentStatus | None:
        """The last status that the housekeeper wrote. None before the first one."""
        try:
            return ParentStatus(**json.loads((self.path / "parent").read_text()))
        except FileNotFoundError:
            return None

    def stop(self) -> None:
        """Tell the children that the worker stops. Only the first call has an effect."""
        if self.stopping_for() is None:
            _write(self.path / "stopping", "")

    def children(self) -> dict[int, ChildReport]:
        """The reports of all children that wrote one, by process id."""
        reports = {}
        for file in self.path.glob("child-*.json"):
            report = ChildReport(**json.loads(file.read_text()))
            reports[report.pid] = report
        return reports

    def holds(self) -> dict[int, str]:
        """The reasons of the processes that wait, by process id."""
        reasons = {}
        for file in self.path.glob("hold-*"):
            try:
                reasons[int(file.name.removeprefix("hold-"))] = file.read_text()
            except FileNotFoundError:
                continue
        return reasons

    def attempts(self) -> dict[int, AttemptNote]:
        """The recorded attempts, by process id, also those of processes that died during the attempt."""
        notes = {}
        for file in self.path.glob("attempt-*"):
            try:
                text = file.read_text()
            except FileNotFoundError:
                continue
            if not text.endswith("\n"):
                continue
            token, job_id = text.split()
            pid = int(file.name.removeprefix("attempt-"))
            notes[pid] = AttemptNote(pid, uuid.UUID(token), job_id)
        return notes

    def forget_attempt(self, note: AttemptNote) -> None:
        """Remove the note of a process that is dead."""
        (self.path / f"attempt-{note.pid}").unlink(missing_ok=True)

    def forget(self, pid: int) -> None:
        """Remove the report and the hold of a dead process."""
        (self.path / f"child-{pid}.json").unlink(missing_ok=True)
        (self.path / f"hold-{pid}").unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder and what is in it."""
        shutil.rmtree(self.path, ignore_errors=True)  # a child that is ending may still write
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def run_dirs(folder: Path) -> list[RunDir]:
    """The folders of all workers below ``folder``, also of dead ones, sorted by name."""
    found = []
    for path in sorted(folder.glob("tussis-*")):
        # /tmp also has files and folders of other users.
        if os.access(path / "worker", os.R_OK) and os.access(path / "lock", os.R_OK):
            found.append(RunDir(path))
    return found


def remove_leftovers(folder: Path) -> None:
    """Remove the folders of workers that were killed."""
    for run_dir in run_dirs(folder):
        if not run_dir.held:
            run_dir.remove()


def _write(path: Path, text: str) -> None:
    replace_file(path, text.encode())
