"""A worker's child process: it loads the model after the fork, warms up, and reports it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import billiard.pool
import torch

from tussis.shared.broker import connect, redact
from tussis.shared.dsp.profiles import Decoder, profile_named
from tussis.shared.errors import OperatorError, TransientError, TussisError
from tussis.shared.ledger import Ledger
from tussis.shared.queues import Device, ServedModel
from tussis.shared.s3 import s3_client
from tussis.shared.settings import Settings
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store
from tussis.worker import logs
from tussis.worker.audio.jail.decoder import JailedDecoder, Mode, open_jail
from tussis.worker.detector.manifest import Manifest, read_manifest
from tussis.worker.detector.tuning.choice import open_chosen
from tussis.worker.detector.tuning.graph_cache import Choice
from tussis.worker.device.scorer import DeviceScorer
from tussis.worker.pipeline.context import WorkerContext
from tussis.worker.pipeline.prepare import limits_of
from tussis.worker.pipeline.repeated_get import RepeatedGet
from tussis.worker.pipeline.scoring import OwnProcess
from tussis.worker.pipeline.watchdog import end_at_deadlines
from tussis.worker.status.metrics import Meter, NoMeter
from tussis.worker.status.rundir import Phase, RunDir

_log = logs.get("child")
_context: WorkerContext | None = None

#: Seconds. A worker's statements take milliseconds and may wait 10 s for a lock. A database that does not answer a few
#: seconds later is not available. The store's default is longer, for reports.
_STATEMENT_TIMEOUT_S = 15
#: Seconds between two tries of a replacement to reach an unavailable server.
_START_PAUSE_S = 1.0


#: A memory limit for a child that no process reaches, in KiB.
OUT_OF_REACH_KIB = 1 << 50


@dataclass(frozen=True)
class ChildSetup:
    """What a child needs to start. The parent makes it before the fork."""

    settings: Settings
    device: Device
    worker: str
    model: Path
    threads: int
    run_dir: RunDir
    meter: Meter = field(default_factory=NoMeter)
    choice: Choice | None = None
    """How a child runs the model. None: the original, in onnxruntime."""
    remote: bool = False
    """The model runs in the worker's device process."""
    serves: ServedModel | None = None
    """The model by its name and version. None: the worker has no model queues."""


def start(setup: ChildSetup) -> None:
    """Load the model and warm up. Report ``ready``, or ``refused`` with the reason, in the run directory."""
    global _context
    torch.set_num_threads(setup.threads)
    end_at_deadlines()
    try:
        _context = _make_context_when_available(setup)
    except (OperatorError, TransientError) as error:
        setup.run_dir.report("refused", str(error))
        return
    except Exception as error:
        # Without a report to the parent, this process would receive messages and process none of them.
        setup.run_dir.report("refused", f"{type(error).__name__}: {error}")
        raise
    setup.run_dir.report("ready", _context.scorer.manifest.label)
    _log.info("child_ready", pid=os.getpid(), model=_context.scorer.manifest.label, threads=setup.threads)


def _make_context_when_available(setup: ChildSetup) -> WorkerContext:
    """Make the context. A replacement waits for a server that is not available, because the worker ran before."""
    while True:
        try:
            return make_context(setup)
        except TransientError as error:
            beat = setup.run_dir.last_beat()
            first = beat is None or beat.phase not in (Phase.CONNECTING, Phase.CONSUMING)
            if first or setup.run_dir.stopping_for() is not None:
                raise
            setup.run_dir.hold(str(error))
            _log.warning("holding", error_class=error.error_class, reason=str(error))
            time.sleep(_START_PAUSE_S)
            setup.run_dir.resume()


def make_context(setup: ChildSetup) -> WorkerContext:
    """Make the context of a child process. Raises operator's and transient errors."""
    settings = setup.settings
    scorer = _scorer(setup)
    store = Store.connect(
        settings.need_database(),
        pool_size=1,
        statement_timeout_s=_STATEMENT_TIMEOUT_S,
        direct=settings.database_direct,
    )
    store.verify_schema()
    facts = facts_of(scorer.manifest)
    # This finds a conflict at the start. The number of the model is not kept: the claim looks it up.
    store.register_model(facts)
    url = settings.need_broker()
    return WorkerContext(
        settings=settings,
        store=store,
        ledger=Ledger(connect(url), redact(url), setup.serves, settings.outcome_bounds),
        s3=RepeatedGet(s3_client(settings)),
        scorer=scorer,
        model=facts,
        worker=setup.worker,
        device=setup.device,
        run_dir=setup.run_dir,
        meter=setup.meter,
        jail=_jail(setup, scorer.manifest),
    )


def _jail(setup: ChildSetup, manifest: Manifest) -> JailedDecoder | None:
    """Start the decoder process, and report what this machine lacks for it. Raises :class:`JailMissing`."""
    settings = setup.settings
    mode = Mode(settings.decoder_jail)
    jail, missing = open_jail(
        mode,
        limits_of(settings),
        timeout_s=settings.decode_timeout_s,
        tries=settings.max_attempts,
        outside=profile_named(manifest.profile).decoder is Decoder.PYDUB,
    )
    setup.run_dir.note_jail(missing)
    return jail


def facts_of(manifest: Manifest) -> ModelFacts:
    """What the store has about a model."""
    return ModelFacts(
        name=manifest.name,
        version=manifest.version,
        sha256=manifest.sha256,
        profile=manifest.profile,
        threshold=manifest.threshold,
        provenance=manifest.provenance,
        parent=manifest.parent,
    )


def _scorer(setup: ChildSetup) -> OwnProcess | DeviceScorer:
    if setup.remote:
        return DeviceScorer(read_manifest(setup.model), setup.run_dir, setup.settings.soft_shutdown_s)
    detector = open_chosen(
        setup.model, setup.choice, intra_op_threads=setup.threads, cache_dir=setup.settings.model_cache_dir
    )
    scorer = OwnProcess(detector)
    scorer.warm_up()
    return scorer


def end_after_task() -> None:
    """Let this process end after its task, when the task's message is acknowledged. A new child replaces it.

    After a task, billiard reads the child's memory with ``mem_rss`` and ends a child above
    ``worker_max_memory_per_child``.
    """
    billiard.pool.mem_rss = lambda: 2 * OUT_OF_REACH_KIB


def context() -> WorkerContext:
    """This process's context. Raises :class:`TussisError` in a process that is not ready."""
    if _context is None:
        raise TussisError("this process has not loaded its model")
    return _context
