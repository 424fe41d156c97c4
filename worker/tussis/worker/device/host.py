"""Starts, watches, replaces and ends the device process, from the parent."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from tussis.worker import logs
from tussis.worker.device.arguments import DeviceArguments, Provider
from tussis.worker.status.rundir import RunDir

_log = logs.get("device")

#: The interpreter's arguments for a device process.
ENTRY: Final = ["-P", "-m", "tussis.worker.device.process"]
#: Seconds in which the process has to be ready. TensorRT builds an engine at the first load of a model.
_LOAD_S: Final = {Provider.CUDA: 180.0, Provider.TENSORRT: 1200.0, Provider.CPU: 120.0}
#: Consecutive processes that end before they are ready, with pauses between them, until the worker ends.
_MAX_FALSE_STARTS: Final = 5
#: Seconds before the next start after one, two ... false starts. After a process that was ready there is no pause.
_PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0)
#: Seconds beyond a run's deadline without a report, after which the process counts as hanging.
_SILENCE_S: Final = 60.0
#: Seconds in which the process has to exit after its lifeline is closed.
_LEAVE_S: Final = 5.0
#: Seconds in which a killed process has to end. A driver that hangs can keep it for ever (state D).
_DEATH_S: Final = 10.0


class DeviceHost:
    """One device process at a time, from :meth:`start` to :meth:`close`.

    ``over`` is called with the process id of each process that has ended. Only one thread at a time may use a host.
    """

    def __init__(
        self, arguments: DeviceArguments, run_dir: RunDir, over: Callable[[int], None], entry: list[str] | None = None
    ) -> None:
        self._run_dir = run_dir
        self._over = over
        self._entry = entry or ENTRY
        # Registered before any fork, so that no child keeps the parent's end open. Otherwise the device process would
        # not notice that the parent has ended.
        self._lifeline, self._ours = os.pipe()
        os.register_at_fork(after_in_child=self._forget_ours)
        self._forking = threading.Lock()
        os.register_at_fork(
            before=self._forking.acquire,
            after_in_parent=self._forking.release,
            after_in_child=self._forking.release,
        )
        self._arguments = replace(arguments, lifeline=self._lifeline)
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._was_ready = False
        self._false_starts = 0
        self._next_start = 0.0
        self._killed: str | None = None
        self._killed_at = 0.0
        self.refused: str | None = None
        """The reason why there is no device process and none will be started; None otherwise."""

    @property
    def load_s(self) -> float:
        """Seconds in which a device process has to be ready."""
        return _LOAD_S[self._arguments.provider]

    @property
    def ready(self) -> bool:
        """Whether the process can serve children."""
        return self._process is not None and self._was_ready and self._killed is None

    @property
    def pid(self) -> int | None:
        """Process id of the running process; None when there is none."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start a process and do not wait for it. When the system cannot start one, :meth:`look` tries again."""
        self._run_dir.forget_device()
        self._was_ready = False
        self._began = time.monotonic()
        # A child that is forked while Popen has its pipe open keeps it open, and Popen waits until the child ends.
        try:
            with self._forking:
                self._process = subprocess.Popen(
                    [sys.executable, *self._entry, self._arguments.to_json()],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(self._lifeline,),
                    # Turns TensorFloat-32 off in NVIDIA's libraries, also in TensorRT: float32 results do not use it.
                    env={"NVIDIA_TF32_OVERRIDE": "0", **os.environ},
                )
        except OSError as error:
            self._wait_for_next(f"it could not be started: {error}")

    def look(self) -> None:
        """Check the process, and start the next one when it is due. To be called about every half second.

        Never waits, because the calling thread also sends the heartbeats of the recordings in work.
        """
        if self.refused is not None:
            return
        if self._process is None:
            if time.monotonic() >= self._next_start:
                self.start()
            return
        report = self._run_dir.device()
        ours = report if report is not None and report.pid == self._process.pid else None
        if ours is not None and ours.state == "refused":
            self.refused = ours.message
            return
        if ours is not None and ours.state == "ready" and not self._was_ready and self._killed is None:
            self._was_ready = True
            self._false_starts = 0
            self._run_dir.resume()
        status = self._process.poll()
        if status is not None:
            reason = self._killed or f"it ended with exit status {status}"
            self._ended(reason if ours is None or not ours.message else f"{reason}: {ours.message}")
        elif self._killed is not None:
            if time.monotonic() - self._killed_at > _DEATH_S:
                self.refused = (
                    f"the device process {self._process.pid} did not end after SIGKILL ({self._killed}):"
                    " check the driver"
                )
        elif not self._was_ready and time.monotonic() - self._began > self.load_s:
            self._kill(f"it did not load {self._arguments.model} within {self.load_s:g} s")
        elif ours is not None and time.monotonic() - ours.at > self._arguments.deadline_s + _SILENCE_S:
            self._kill(f"it sent no report for {time.monotonic() - ours.at:.0f} s")

    def _kill(self, reason: str) -> None:
        assert self._process is not None
        self._killed = reason
        self._killed_at = time.monotonic()
        self._process.kill()

    def _ended(self, reason: str) -> None:
        assert self._process is not None
        self._over(self._process.pid)
        self._process = None
        self._killed = None
        self._wait_for_next(reason)

    def _wait_for_next(self, reason: str) -> None:
        """Set the time of the next start, or refuse after too many processes that were never ready."""
        pause = 0.0
        if not self._was_ready:
            self._false_starts += 1
            if self._false_starts >= _MAX_FALSE_STARTS:
                self.refused = f"the device process failed to start {self._false_starts} times: {reason}"
                return
            pause = _PAUSES_S[self._false_starts - 1]
        self._was_ready = False
        self._next_start = time.monotonic() + pause
        # During the hold the worker is not ready, and the time does not count for its recordings.
        self._run_dir.hold(f"the device process is not available: {reason}")
        _log.error("device_lost", reason=reason, pause_s=pause)

    def close(self) -> None:
        """End the process. To be called after the children have ended."""
        if self._ours >= 0:
            os.close(self._ours)
            os.close(self._lifeline)
            self._ours = -1
        if self._process is not None:
            if not _gone(self._process, _LEAVE_S):
                self._process.kill()
                if not _gone(self._process, _DEATH_S):
                    _log.error("device_stuck", pid=self._process.pid)
            self._over(self._process.pid)
            self._process = None

    def _forget_ours(self) -> None:
        """Close the parent's end of the pipe in a fork of the worker."""
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1


def _gone(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether the process ends within ``seconds``."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
