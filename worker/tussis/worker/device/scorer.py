"""A carrier's side: segments out, scores in, and what a broken connection means."""

from __future__ import annotations

import os
import socket
import time
from typing import Final

import numpy as np

from tussis.shared.dsp.profiles import Profile
from tussis.shared.dsp.segments import Cut
from tussis.shared.errors import InferenceFailed
from tussis.worker import logs
from tussis.worker.detector.detector import Scores
from tussis.worker.detector.manifest import Manifest
from tussis.worker.device import wire
from tussis.worker.device.wire import Gone, Kind, Wave
from tussis.worker.outcome import Stopping
from tussis.worker.rundir import RunDir

_log = logs.get("carrier")

#: Seconds that the device process may take to read a recording: 1.1 MB.
_SEND_S: Final = 30.0
#: Seconds between two looks at the stop and the parent.
_LOOK_S: Final = 0.25


class DeviceScorer:
    """The model in the worker's device process.

    While that process is away this one waits, as it does for a database. It ends itself when the device process dies
    with its recording in a run: without a word, which the claim counts when the recording ran alone, and only then.
    """

    apart = True

    def __init__(self, manifest: Manifest, run_dir: RunDir, grace_s: float) -> None:
        """``grace_s``: seconds for which a stopping worker lets its recordings finish."""
        self._manifest = manifest
        self._run_dir = run_dir
        self._grace_s = grace_s
        self._parent = os.getppid()
        self._connection: socket.socket | None = None

    @property
    def manifest(self) -> Manifest:
        """Of the model in the device process, which refuses any other."""
        return self._manifest

    def inputs(self, cut: Cut, profile: Profile) -> Wave:
        """The waveform of the segments; its images are the device's work."""
        return Wave(np.ascontiguousarray(cut.padded.numpy(), dtype=np.float32), profile.name)

    def score(self, inputs: Wave, *, alone: bool) -> Scores:
        """The answers, (1, S).

        Raises :class:`InferenceFailed`, and :class:`Stopping` when the worker stops and the answer would come too late.
        """
        while True:
            connection = self._connected()
            begun = False
            try:
                connection.settimeout(_SEND_S)
                wire.send_wave(connection, inputs, alone=alone)
                connection.settimeout(_LOOK_S)
                while True:
                    try:
                        kind, payload = wire.receive_reply(connection)
                    except TimeoutError:
                        self._look(self._grace_s)
                        continue
                    if kind is Kind.SCORES:
                        return wire.unpack_scores(payload)
                    if kind is Kind.FAILED:
                        raise InferenceFailed(payload.decode())
                    begun = True
            except Gone as error:
                self._hang_up()
                if begun:
                    _log.error("run_lost", reason=str(error), alone=alone)
                    os._exit(1)
            except Stopping:
                self._hang_up()
                raise

    def _connected(self) -> socket.socket:
        """The connection to the device process, waiting for one. Raises :class:`Stopping`."""
        held = False
        try:
            while self._connection is None:
                try:
                    self._connection = wire.connect(self._run_dir.path)
                except Gone as error:
                    if not held:
                        held = True
                        self._run_dir.hold("the device process is away")
                        _log.warning("holding", error_class="device_unavailable", reason=str(error))
                    self._look(0.0)
                    time.sleep(_LOOK_S)
            return self._connection
        finally:
            if held:
                self._run_dir.resume()
                _log.info("holding_over")

    def _look(self, grace_s: float) -> None:
        """Raise :class:`Stopping` when the worker has been stopping for longer; end with the parent."""
        elapsed = self._run_dir.stopping_for()
        if elapsed is not None and elapsed > grace_s:
            raise Stopping("the worker stops; its grace period is over")
        if os.getppid() != self._parent:
            os._exit(1)

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
