"""A child's end of the connection: sends segments, receives scores, and handles a broken connection."""

from __future__ import annotations

import os
import secrets
import socket
import time
from typing import Final

import numpy as np

from tussis.shared.dsp.profiles import Profile
from tussis.shared.dsp.segments import Cut
from tussis.shared.errors import DeviceReplyLost, InferenceFailed, OutOfMemory
from tussis.worker import logs
from tussis.worker.detector.arithmetic import ORIGINAL, Arithmetic
from tussis.worker.detector.detector import Scores
from tussis.worker.detector.manifest import Manifest
from tussis.worker.device import sockets, wire
from tussis.worker.device.wire import LOOK_S, Garbled, Gone, Reply, ReplyKind, ScoreRequest, Wave
from tussis.worker.outcome import Stopping
from tussis.worker.status.rundir import RunDir

_log = logs.get("scorer")

#: Connections on which one recording is tried before its attempt ends with a transient error.
_TRIES: Final = 5
#: Seconds from a request to its final reply. A run ends at its deadline, two minutes by default, and some runs may come
#: first. Only a bug in Tussis takes longer.
_ANSWER_S: Final = 1800.0


class DeviceScorer:
    """The model in the worker's device process.

    A connection is used for the next recording only after the final reply with the last request's id was read from it.
    After any exception it is closed, so that no later request reads an old reply.

    While there is no device process the scorer waits, as for a database. When the device process ends during a run with
    this recording, the child exits at once. The claim counts that as a crash if no other recording shared the run.
    """

    remote = True

    def __init__(self, manifest: Manifest, run_dir: RunDir, grace_s: float) -> None:
        """``grace_s``: seconds for which a stopping worker lets its recordings finish."""
        self._manifest = manifest
        self._run_dir = run_dir
        self._grace_s = grace_s
        self._parent = os.getppid()
        self._idle: socket.socket | None = None

    @property
    def manifest(self) -> Manifest:
        """The manifest of the model in the device process, which refuses any other model."""
        return self._manifest

    @property
    def arithmetic(self) -> Arithmetic:
        """The provider and the device in the last report of the device process. Empty texts if there is none."""
        report = self._run_dir.device()
        return Arithmetic(report.provider, ORIGINAL, report.device) if report else Arithmetic("", ORIGINAL, "")

    def inputs(self, cut: Cut, profile: Profile) -> Wave:
        """The waveform of the segments; the device process makes the images."""
        return Wave(np.ascontiguousarray(cut.padded.numpy(), dtype=np.float32), profile.name)

    def score(self, inputs: Wave, *, exclusive: bool) -> Scores:
        """The scores, (1, S).

        Raises:
            InferenceFailed: the model returns no usable scores for this recording.
            OutOfMemory: the device process had too little memory.
            DeviceReplyLost: no valid reply came on several connections.
            Stopping: the worker is stopping, and the scores would come too late.
        """
        for number in range(1, _TRIES + 1):
            try:
                return self._ask(ScoreRequest(secrets.randbits(64), inputs, exclusive))
            except (Gone, Garbled) as error:
                reason = str(error)
                _log.warning("reply_lost", reason=reason, tries=number)
            self._look(self._grace_s)
            time.sleep(LOOK_S)
        raise DeviceReplyLost(f"no valid reply from the device process in {_TRIES} tries: {reason}")

    def close(self) -> None:
        """Close the idle connection if there is one."""
        connection, self._idle = self._idle, None
        if connection is not None:
            connection.close()

    def _ask(self, request: ScoreRequest) -> Scores:
        """One try on one connection. Raises as :meth:`score`, :class:`Gone` and :class:`Garbled`."""
        connection = self._take()
        try:
            reply = self._exchange(connection, request)
            scores = (
                wire.unpack_scores(reply.payload, request.wave.segments) if reply.kind is ReplyKind.SCORES else None
            )
        except BaseException:
            connection.close()
            raise
        self._idle = connection
        if scores is not None:
            return scores
        if reply.kind is ReplyKind.SHORT:
            raise OutOfMemory(f"the device process has too little memory for a run: {reply.message}")
        raise InferenceFailed(reply.message)

    def _exchange(self, connection: socket.socket, request: ScoreRequest) -> Reply:
        """Send the request and read its final reply."""
        device = sockets.peer_pid(connection)
        begun = False
        try:
            wire.send_request(connection, request, self._look_in_grace)
            ends = time.monotonic() + _ANSWER_S
            while True:
                reply = wire.receive_reply(connection, ends, self._look_in_grace)
                if reply.id != request.id:
                    raise Garbled(f"received the reply to request {reply.id:016x} instead of {request.id:016x}")
                if reply.kind is not ReplyKind.BEGUN:
                    break
                begun = True
        except Gone as error:
            if begun and not self._lives(device):
                _log.error("run_lost", reason=str(error), exclusive=request.exclusive)
                os._exit(1)
            raise
        if not begun:
            raise Garbled(f"received a reply of kind {reply.kind.name} before the run began")
        return reply

    def _lives(self, device: int) -> bool:
        """Whether the device process with this id still listens. If it does, only the connection has ended."""
        time.sleep(LOOK_S)  # a process that ends closes its connections one after the other
        try:
            with sockets.connect(self._run_dir.path) as connection:
                return sockets.peer_pid(connection) == device
        except Gone:
            return False

    def _take(self) -> socket.socket:
        """Return the idle connection, or wait for a new one. Raises :class:`Stopping`.

        The connection is no longer the idle one, so that after an exception the next recording cannot use it.
        """
        connection, self._idle = self._idle, None
        held = False
        try:
            while connection is None:
                try:
                    connection = sockets.connect(self._run_dir.path)
                except Gone as error:
                    if not held:
                        held = True
                        self._run_dir.hold("the device process is not available")
                        _log.warning("holding", error_class="device_unavailable", reason=str(error))
                    self._look(0.0)
                    time.sleep(LOOK_S)
            return connection
        finally:
            if held:
                self._run_dir.resume()
                _log.info("holding_over")

    def _look_in_grace(self) -> None:
        self._look(self._grace_s)

    def _look(self, grace_s: float) -> None:
        """Raise :class:`Stopping` when the worker has been stopping for over ``grace_s``. Exit if the parent ended."""
        elapsed = self._run_dir.stopping_for()
        if elapsed is not None and elapsed > grace_s:
            raise Stopping("the worker is stopping and its grace period is over")
        if os.getppid() != self._parent:
            os._exit(1)
