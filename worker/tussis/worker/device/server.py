"""The server of the device process: a thread for each child reads requests, one thread runs them and replies."""

from __future__ import annotations

import errno
import faulthandler
import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tussis.shared.dsp.profiles import PROFILES
from tussis.shared.errors import InferenceFailed
from tussis.worker import logs
from tussis.worker.detector.detector import Scores
from tussis.worker.detector.session import RunFailed
from tussis.worker.device import wire
from tussis.worker.device.arguments import DeviceArguments
from tussis.worker.device.batches import Queued, RunLimits, WaitingRequests
from tussis.worker.device.child_connection import ChildConnection
from tussis.worker.device.engine import Engine
from tussis.worker.device.meter import DeviceMeter
from tussis.worker.device.wire import Garbled, Gone, ReplyKind
from tussis.worker.shortage import is_shortage

_log = logs.get("device")

#: Exit status of a process whose device no longer computes the scores of the start.
BROKEN: Final = 3
#: Errors of accept(2) for a connection that was aborted before it, and for a transient lack of resources.
_PASSING: Final = (errno.ECONNABORTED, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
#: Seconds from such an error to the next accept.
_ACCEPT_PAUSE_S: Final = 0.5


@dataclass(frozen=True)
class _Failed:
    """A run that failed."""

    reason: str
    short: bool
    """Whether a lack of memory is the reason."""


class Server:
    """Receives requests from children and runs them."""

    def __init__(self, engine: Engine, arguments: DeviceArguments, meter: DeviceMeter) -> None:
        self._engine = engine
        self._deadline_s = arguments.deadline_s
        self._meter = meter
        graph = engine.graph
        limits = RunLimits(
            segments=arguments.batch_segments,
            wait_s=arguments.batch_wait_ms / 1000,
            recordings=1 if graph.fixed_batch else None,
            fixed_segments=graph.fixed_segments,
        )
        self._limits = limits
        self._children: set[ChildConnection] = set()
        self._lock = threading.Lock()
        self._waiting = WaitingRequests(limits, lambda: len(self._children))

    def accept(self, listener: socket.socket) -> None:
        """Accept children until the process ends."""
        while True:
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if error.errno not in _PASSING:
                    raise
                _log.warning("child_connection_refused", reason=str(error))
                time.sleep(_ACCEPT_PAUSE_S)
                continue
            self.attend(connection)

    def attend(self, connection: socket.socket) -> None:
        """Serve one child in its own thread. Without a free thread or descriptor, its connection is closed."""
        try:
            child = ChildConnection(connection)
        except OSError as error:
            _log.warning("child_connection_refused", reason=str(error))
            connection.close()
            return
        with self._lock:
            self._children.add(child)
        try:
            threading.Thread(target=self._read, args=(child,), name="child", daemon=True).start()
        except RuntimeError as error:  # the system's limit on threads, or on memory
            _log.warning("child_connection_refused", reason=str(error))
            self._remove(child)

    def _read(self, child: ChildConnection) -> None:
        try:
            while True:
                request = child.read()
                if request.wave.profile not in PROFILES:
                    raise Garbled(f"unknown profile {request.wave.profile!r}")
                self._waiting.add(Queued(request, child))
        except Gone:
            pass
        except Garbled as error:
            _log.error("child_connection_garbled", reason=str(error))
        except MemoryError:
            # The child sends it again, a limited number of times.
            _log.warning("child_connection_refused", reason="too little memory for a recording")
        finally:
            self._remove(child)

    def _remove(self, child: ChildConnection) -> None:
        with self._lock:
            self._children.discard(child)
        self._waiting.drop(child)
        child.close()

    def run(self) -> None:
        """Run the waiting requests until :meth:`close` is called or the process ends."""
        while batch := self._waiting.take():
            self._run_batch(batch)

    def close(self) -> None:
        """Make :meth:`run` return."""
        self._waiting.close()

    def _run_batch(self, batch: Sequence[Queued]) -> None:
        """Run a batch, in several runs if one run fails, and reply to every child in it."""
        answers = self._try(batch)
        if isinstance(answers, _Failed):
            self._failed(batch, answers)
            return
        for queued, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Scores):
                queued.owner.reply(queued.request, ReplyKind.SCORES, wire.pack_scores(answer))
            else:
                queued.owner.reply(queued.request, ReplyKind.FAILED, str(answer).encode())

    def _failed(self, batch: Sequence[Queued], failed: _Failed) -> None:
        """Repeat a failed run of several recordings with fewer; reply after a failed run of one recording.

        When memory is short, each repeated run has half of the recordings; otherwise it has one. A recording cannot be
        split, because its bag probability depends on all of its segments. When the device no longer works after a
        failed run of one recording, the process ends. Then it sends no reply except that of a lack of memory.
        """
        if len(batch) > 1:
            size = 1
            if failed.short:
                size = (len(batch) + 1) // 2
                _log.warning("run_short", recordings=len(batch), reason=failed.reason)
            else:
                _log.warning("run_failed", recordings=len(batch), reason=failed.reason)
            for first in range(0, len(batch), size):
                self._run_batch(batch[first : first + size])
            return
        (queued,) = batch
        if failed.short:
            # Sent before the check of the device: a lack of memory must not count as a crash, even if the process ends.
            _log.warning("run_short", recordings=1, reason=failed.reason)
            queued.owner.reply(queued.request, ReplyKind.SHORT, failed.reason.encode())
        with _Deadline(self._deadline_s):
            works = self._engine.works()
        if not works:
            _log.error("device_broken", reason=failed.reason)
            os._exit(BROKEN)
        if not failed.short:
            queued.owner.reply(queued.request, ReplyKind.FAILED, str(self._engine.failure(failed.reason)).encode())

    def _try(self, batch: Sequence[Queued]) -> list[Scores | InferenceFailed] | _Failed:
        """Do one run. Any exception that it raises ends the process."""
        # Sent before the run, because a recording of the batch may cause this process to end.
        for queued in batch:
            queued.owner.reply(queued.request, ReplyKind.BEGUN)
        began = time.monotonic()
        try:
            with _Deadline(self._deadline_s):
                answers = self._engine.score([queued.request.wave for queued in batch])
        except Exception as error:
            short = is_shortage(error)
            if not short and not isinstance(error, RunFailed):
                raise
            failed = _Failed(f"{type(error).__name__}: {error}" if short else str(error), short)
        else:
            segments = [queued.segments for queued in batch]
            width = self._limits.width(max(segments))
            waited = [began - queued.arrived for queued in batch]
            self._meter.ran(segments, width * len(batch), waited, time.monotonic() - began)
            return answers
        # After the exception handler, because inside it the error's traceback holds the run's tensors.
        if failed.short:
            self._engine.release_memory()
        return failed


class _Deadline:
    """After the deadline the process prints its stacks and exits with status 1. The timer, a C thread, needs no GIL."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        faulthandler.dump_traceback_later(self._seconds, exit=True, file=2)

    def __exit__(self, *_: object) -> None:
        faulthandler.cancel_dump_traceback_later()
