"""The device process at work: a thread for each carrier reads, one thread runs."""

from __future__ import annotations

import faulthandler
import os
import socket
import threading
import time
from collections.abc import Sequence
from typing import Final

from tussis.shared.dsp.profiles import PROFILES
from tussis.shared.errors import InferenceFailed
from tussis.worker import logs
from tussis.worker.detector.detector import Scores
from tussis.worker.detector.session import RunFailed
from tussis.worker.device import wire
from tussis.worker.device.batches import Limits, Request, Waiting
from tussis.worker.device.engine import Engine
from tussis.worker.device.meter import DeviceMeter
from tussis.worker.device.order import DeviceOrder
from tussis.worker.device.wire import Garbled, Gone, Kind

_log = logs.get("device")

#: Seconds in which a carrier has to take an answer of some hundred bytes; the socket holds hundreds of them.
_SEND_TIMEOUT_S: Final = 10.0
#: Exit status of a process whose device no longer answers as it did.
BROKEN: Final = 3


class Carrier:
    """One child of the worker, from its connection to its end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        # Carriers wait for recordings for hours; the timeout is for sending.
        connection.settimeout(_SEND_TIMEOUT_S)

    def read(self) -> tuple[wire.Wave, bool]:
        """The next recording. Raises :class:`Gone`, :class:`Garbled`."""
        while True:
            try:
                return wire.receive_wave(self._connection)
            except TimeoutError:
                continue

    def tell(self, kind: Kind, payload: bytes = b"") -> None:
        """Answer. One that is gone needs none: its reader sees the same."""
        try:
            wire.send_reply(self._connection, kind, payload)
        except Gone:
            self.close()

    def close(self) -> None:
        """Hang up; the reader's read ends."""
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is down already


class Server:
    """Takes recordings from carriers, and runs them."""

    def __init__(self, engine: Engine, order: DeviceOrder, meter: DeviceMeter) -> None:
        self._engine = engine
        self._deadline_s = order.deadline_s
        self._meter = meter
        graph = engine.graph
        limits = Limits(
            segments=order.batch_segments,
            wait_s=order.batch_wait_ms / 1000,
            recordings=1 if graph.fixed_batch else None,
            fixed_segments=graph.fixed_segments,
        )
        self._limits = limits
        self._carriers: set[Carrier] = set()
        self._lock = threading.Lock()
        self._waiting = Waiting(limits, lambda: len(self._carriers))

    def accept(self, listener: socket.socket) -> None:
        """Take carriers in, until the process ends."""
        while True:
            connection, _ = listener.accept()
            carrier = Carrier(connection)
            with self._lock:
                self._carriers.add(carrier)
            threading.Thread(target=self._attend, args=(carrier, connection), name="carrier", daemon=True).start()

    def _attend(self, carrier: Carrier, connection: socket.socket) -> None:
        try:
            while True:
                wave, alone = carrier.read()
                if wave.profile not in PROFILES:
                    raise Garbled(f"no profile {wave.profile!r}")
                self._waiting.add(Request(wave, alone, carrier))
        except Gone:
            pass
        except Garbled as error:
            _log.error("carrier_garbled", reason=str(error))
        finally:
            with self._lock:
                self._carriers.discard(carrier)
            self._waiting.drop(carrier)
            connection.close()

    def run(self) -> None:
        """Run what waits, until the process ends."""
        while batch := self._waiting.take():
            self._run_batch(batch)

    def _run_batch(self, batch: Sequence[Request]) -> None:
        answers = self._try(batch)
        if answers is None and len(batch) > 1:
            # One of them may have done it: nobody answers for a neighbour.
            for request in batch:
                self._run_batch([request])
            return
        if answers is None:
            return
        for request, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Scores):
                request.owner.tell(Kind.SCORES, wire.pack_scores(answer))
            else:
                request.owner.tell(Kind.FAILED, str(answer).encode())

    def _try(self, batch: Sequence[Request]) -> list[Scores | InferenceFailed] | None:
        """The answers; None when the run failed with several in it.

        A run that fails with one in it is that one's failure, unless the device answers nobody any more: then the
        process ends, without a word to the carriers.
        """
        # From here on, the end of this process may be their doing.
        for request in batch:
            request.owner.tell(Kind.BEGUN)
        began = time.monotonic()
        try:
            with _Deadline(self._deadline_s):
                answers = self._engine.score([request.wave for request in batch])
        except RunFailed as error:
            if len(batch) > 1:
                _log.warning("run_failed", recordings=len(batch), reason=str(error))
                return None
            with _Deadline(self._deadline_s):
                works = self._engine.works()
            if not works:
                _log.error("device_broken", reason=str(error))
                os._exit(BROKEN)
            return [self._engine.failure(error)]
        segments = [request.wave.segments for request in batch]
        width = self._limits.width(max(segments))
        waited = [began - request.arrived for request in batch]
        self._meter.ran(segments, width * len(batch), waited, time.monotonic() - began)
        return answers


class _Deadline:
    """Past it the process prints its stacks and exits with status 1: a C thread's timer, that needs no GIL."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        faulthandler.dump_traceback_later(self._seconds, exit=True, file=2)

    def __exit__(self, *_: object) -> None:
        faulthandler.cancel_dump_traceback_later()
