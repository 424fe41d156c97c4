"""The context of a child process, made once, after the fork."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from tussis.shared.coverage import Coverage
from tussis.shared.dsp.profiles import Profile, profile_named
from tussis.shared.ledger import Ledger
from tussis.shared.messages import Job
from tussis.shared.queues import Device, ServedModel
from tussis.shared.settings import Settings
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store
from tussis.worker.audio.jail.decoder import JailedDecoder
from tussis.worker.audio.limits import Limits
from tussis.worker.outcome import Stopping
from tussis.worker.pipeline.access import Access
from tussis.worker.pipeline.prepare import limits_of
from tussis.worker.pipeline.scoring import Scorer
from tussis.worker.status.metrics import Meter, NoMeter
from tussis.worker.status.rundir import RunDir


@dataclass(frozen=True)
class JobRules:
    """The profile and the coverage for a job."""

    profile: Profile
    profile_overridden: bool
    """The job names another profile than the model's manifest."""
    coverage: Coverage
    coverage_overridden: bool
    """The job names another coverage than the model's manifest."""


@dataclass
class WorkerContext:
    """What a child process needs. Only :attr:`access` changes."""

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
    jail: JailedDecoder | None = None
    """Decodes recordings. None: this process does."""

    @property
    def limits(self) -> Limits:
        """The limits for a recording."""
        return limits_of(self.settings)

    def serves(self, model: str) -> bool:
        """Whether this worker serves the model with this ``name`` or ``name@version``."""
        manifest = self.scorer.manifest
        return model in ServedModel(manifest.name, manifest.version).texts

    def rules_of(self, job: Job) -> JobRules:
        """Choose profile and coverage: the job's, or the manifest's if the job has none.

        Raises :class:`UnknownProfile`.
        """
        manifest = self.scorer.manifest
        profile = profile_named(job.profile or manifest.profile)
        coverage = job.coverage or Coverage(manifest.coverage)
        return JobRules(
            profile,
            profile_overridden=profile.name != manifest.profile,
            coverage=coverage,
            coverage_overridden=coverage != manifest.coverage,
        )

    def check_stop(self) -> None:
        """Raise :class:`Stopping` when the worker stops and its grace period is over."""
        elapsed = self.run_dir.stopping_for()
        if elapsed is not None and elapsed > self.settings.soft_shutdown_s:
            raise Stopping("the worker is stopping and its grace period is over")

    def pause(self, seconds: float) -> None:
        """Wait. Raises :class:`Stopping` as soon as the worker stops."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            if self.run_dir.stopping_for() is not None:
                raise Stopping("the worker is stopping")
            time.sleep(min(left, 0.2))
