"""What one worker process has at hand: made once, in the child, after the fork."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tussis.shared.dsp.profiles import Profile, profile_named
from tussis.shared.errors import (
    BrokerRefused,
    BrokerUnavailable,
    DatabaseRefused,
    DatabaseUnavailable,
    DiskFull,
    ModelNotServed,
    SchemaMismatch,
    TussisError,
)
from tussis.shared.ledger import Ledger
from tussis.shared.messages import Job
from tussis.shared.queues import Device
from tussis.shared.settings import Settings
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store
from tussis.worker import logs
from tussis.worker.audio.limits import Limits
from tussis.worker.outcome import Stopping
from tussis.worker.pipeline.access import Access
from tussis.worker.pipeline.prepare import limits_of
from tussis.worker.pipeline.scoring import Scorer
from tussis.worker.status.metrics import Meter, NoMeter
from tussis.worker.status.rundir import RunDir

T = TypeVar("T")
_log = logs.get("worker")

#: Seconds between two looks at something that is away, and the longest such pause.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 5.0
#: Seconds for which a process takes no message after an error that only an operator can mend.
OPERATOR_PAUSE_S = 15.0
#: What :meth:`Parts.patiently` waits out: what passes, and what the operator of database or broker has to mend.
_AWAY = (DatabaseUnavailable, BrokerUnavailable, BrokerRefused)
_TO_MEND = (DatabaseRefused, DiskFull, SchemaMismatch)


@dataclass(frozen=True)
class Plan:
    """How a job is to be analysed here."""

    profile: Profile
    overridden: bool
    """The job names another profile than the model's manifest."""


@dataclass
class Parts:
    """The parts of one process. Only :attr:`access` changes."""

    settings: Settings
    store: Store
    ledger: Ledger
    s3: Any
    scorer: Scorer[Any]
    model: ModelFacts
    worker: str
    device: Device
    run_dir: RunDir
    meter: Meter = field(default_factory=NoMeter)
    access: Access = field(default_factory=Access)

    @property
    def limits(self) -> Limits:
        """The caps on a recording."""
        return limits_of(self.settings)

    def plan(self, job: Job) -> Plan:
        """Decide the profile: the job's, else the manifest's; there is no other default.

        Raises :class:`ModelNotServed` when the job names another model, :class:`UnknownProfile`.
        """
        manifest = self.scorer.manifest
        if job.model is not None and job.model not in (manifest.name, f"{manifest.name}@{manifest.version}"):
            raise ModelNotServed(
                f"the message asks for model {job.model!r}, this worker serves {manifest.name}@{manifest.version}"
            )
        profile = profile_named(job.profile or manifest.profile)
        return Plan(profile, overridden=profile.name != manifest.profile)

    def check_stop(self) -> None:
        """Raise :class:`Stopping` when the worker stops and the grace for work in progress is over."""
        elapsed = self.run_dir.stopping_for()
        if elapsed is not None and elapsed > self.settings.soft_shutdown_s:
            raise Stopping("the worker stops; its grace period is over")

    def patiently(self, call: Callable[[], T]) -> T:
        """Call until neither the database nor the broker is away or refuses: that time counts towards nothing.

        The process keeps its message and its work meanwhile, so that it takes no other one. Raises :class:`Stopping`
        when the worker is told to stop first; every other error passes through.
        """
        pause = _FIRST_PAUSE_S
        held = ""
        try:
            while True:
                try:
                    return call()
                except (*_AWAY, *_TO_MEND) as error:
                    if held != error.error_class:
                        held = error.error_class
                        self.run_dir.hold(str(error))
                        if isinstance(error, _TO_MEND):
                            _log.error("paused", error_class=held, reason=str(error), seconds=_LONGEST_PAUSE_S)
                        else:
                            _log.warning("holding", error_class=held, reason=str(error))
                    self.pause(random.uniform(pause / 2, pause))
                    pause = min(_LONGEST_PAUSE_S, pause * 2)
        finally:
            if held:
                self.run_dir.resume()
                _log.info("holding_over")

    def pause(self, seconds: float) -> None:
        """Wait, looking out for the worker's stop. Raises :class:`Stopping`."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            if self.run_dir.stopping_for() is not None:
                raise Stopping("the worker stops")
            time.sleep(min(left, 0.2))

    def note_access(self, job: Job, error: TussisError | None) -> bool:
        """Note that the recording was fetched (None), or how it ended. True when the error concerns all recordings."""
        if error is None:
            self.access.granted(job)
        return error is not None and self.access.concerns_all(job, error, self.s3)
