"""The periodic duties of a worker's parent process, in a separate thread beside the consumer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from celery.worker import state as celery_state

from tussis.shared.broker import broker_errors, connect, redact
from tussis.shared.broker_functions import function, load
from tussis.shared.errors import TransientError
from tussis.shared.ledger_repair import LedgerRepair
from tussis.shared.model_queues import ModelQueues
from tussis.shared.pauses import Pauses
from tussis.shared.queues import UNACKED_INDEX_KEY
from tussis.worker import logs
from tussis.worker.device.host import DeviceHost
from tussis.worker.parent.beats import Beats, age_limit_s
from tussis.worker.parent.children import watch_children, watch_device
from tussis.worker.parent.exposition import Exposition
from tussis.worker.parent.paused import PAUSED
from tussis.worker.parent.pool import busy_children, child_pids, tags_in_work
from tussis.worker.parent.readiness import NotReady, wait_for_children
from tussis.worker.parent.reconciler import INTERVAL_S, Reconciler
from tussis.worker.parent.registry import FORGET_AFTER_S, REPORT_INTERVAL_S, WorkerRegistry
from tussis.worker.parent.starving import Starving
from tussis.worker.parent.stop import BoundedStop
from tussis.worker.parent.unserved import UnservedModels
from tussis.worker.pipeline.child import ChildSetup
from tussis.worker.status.rundir import ParentStatus

_log = logs.get("housekeeper")

#: Heartbeats within one visibility timeout: several may fail before a message in work is delivered again.
_BEATS_PER_TIMEOUT = 6
#: Seconds between two writes of the status for the probes.
_NOTE_INTERVAL_S = 1.0
#: Seconds between two reads of the paused queues.
_PAUSED_INTERVAL_S = 1.0
#: Seconds between two checks that the broker has the functions of this version. Calls find at once that it has none.
_FUNCTIONS_INTERVAL_S = 60.0
#: Seconds between two rounds.
_ROUND_S = 0.5


class Housekeeper:
    """The duties of one worker's parent, from :meth:`start` to :meth:`close`.

    It runs longer than the consumer: while a stopping worker waits for its children, their messages need heartbeats.
    """

    def __init__(
        self,
        setup: ChildSetup,
        exposition: Exposition | None = None,
        device: DeviceHost | None = None,
        before_kill: Callable[[], object] = lambda: None,
        active_model: Callable[[], str | None] = lambda: None,
    ) -> None:
        """``before_kill`` is called before children are killed. ``active_model`` returns the ``name@version`` that
        answers jobs that name no model. It is called seldom, by the leader, and must return within a few seconds."""
        self._setup = setup
        self._exposition = exposition
        self._device = device
        self._run_dir = setup.run_dir
        url = setup.settings.need_broker()
        self._client = connect(url)
        self._where = redact(url)
        self._beat_script = function(self._client, "tussis_beat")
        repair = LedgerRepair(self._client, self._where, setup.settings.outcome_bounds)
        queues = ModelQueues(self._client, self._where)
        models = UnservedModels(queues, setup.settings.model_wait_s, active_model=active_model)
        self._reconciler = Reconciler(self._client, repair, setup.worker, models)
        model = str(setup.model) if setup.serves is None else setup.serves.label
        self._registry = WorkerRegistry(self._client, self._where, setup.worker, setup.device, model, setup.serves)
        soft_shutdown_s = setup.settings.soft_shutdown_s
        self._stop = BoundedStop(setup.run_dir, soft_shutdown_s, before_kill, self._registry.sign_off)
        self._beats = Beats(age_limit_s(setup.settings))
        self._starving = Starving()
        self._pauses = Pauses(self._client, self._where)
        self._paused: list[str] = []
        self._broker_since: float | None = None
        self._due: dict[str, float] = {}
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.problem: NotReady | None = None
        """The reason why the worker did not become ready or cannot continue."""

    def start(self, worker: Any) -> None:
        """Wait for the children, then start the thread. Raises :class:`NotReady`."""
        try:
            wait_for_children(worker, self._run_dir, self._setup.model, self._device)
        except NotReady as error:
            self.problem = error
            raise
        self._thread = threading.Thread(target=self._run, args=(worker,), name="housekeeper", daemon=True)
        self._thread.start()

    def announce(self, worker: Any) -> None:
        """Log that the worker is ready: all children have warmed up, and the consumer takes messages."""
        _log.info(
            "worker_ready",
            worker=self._setup.worker,
            device=self._setup.device.value,
            children=len(child_pids(worker)),
            queues=[queue.name for queue in worker.app.conf.task_queues],
            model=str(self._setup.model),
        )
        if lacks := self._run_dir.jail_lacks():
            _log.warning("decoder_jail", lacks=lacks)

    def close(self) -> None:
        """End the thread and remove the worker's entry in the broker, after the worker has stopped."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        self._registry.sign_off()

    def _run(self, worker: Any) -> None:
        beat_every_s = self._setup.settings.visibility_timeout_s / _BEATS_PER_TIMEOUT
        last = time.monotonic()
        while not self._over.wait(_ROUND_S):
            now = time.monotonic()
            elapsed_s, last = now - last, now
            self._do(self._stop.watch, worker)
            self._do(watch_children, worker, self._run_dir, self._fold_metrics)
            self._do(self._watch_device)
            if self._is_due("note", _NOTE_INTERVAL_S, now):
                self._do(self._note, worker)
            if self._is_due("paused", _PAUSED_INTERVAL_S, now):
                self._do(self._read_paused)
            self._do(self._attend_broker, worker, beat_every_s, max(elapsed_s, beat_every_s), now)

    def _do(self, duty: Callable[..., object], *arguments: Any) -> None:
        """Do one duty. After an error the others continue: without heartbeats, all work would be delivered again."""
        try:
            duty(*arguments)
        except TransientError as error:
            self._broker_since = None
            _log.warning("duty_failed", error_class=error.error_class, reason=str(error))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            _log.error("duty_failed", error_class="internal", reason=reason, exc_info=True)

    def _is_due(self, what: str, every_s: float, now: float) -> bool:
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + every_s
        return True

    def _read_paused(self) -> None:
        """Let the consumer take messages only from the queues that are not paused. Keep the last answer on an error."""
        paused = [pause.queue for pause in self._pauses.read()]
        PAUSED.update(paused)
        if paused != self._paused:
            _log.info("queues_paused", queues=paused)
            self._paused = paused

    def _attend_broker(self, worker: Any, beat_every_s: float, elapsed_s: float, now: float) -> None:
        if self._is_due("beat", beat_every_s, now):
            self._beat(elapsed_s)
        if self._is_due("report", REPORT_INTERVAL_S, now):
            self._report(worker)
        if self._is_due("forget", FORGET_AFTER_S, now):
            self._registry.forget_silent_workers()
        if self._is_due("functions", _FUNCTIONS_INTERVAL_S, now):
            with broker_errors(self._where):
                load(self._client)
        if self._is_due("reconcile", INTERVAL_S, now):
            with broker_errors(self._where):
                self._reconciler.look()
            if self._reconciler.unfinished:
                self._due["reconcile"] = now

    def _beat(self, elapsed_s: float) -> None:
        """Send heartbeats: messages in work must not be delivered to other workers."""
        tags = self._beats.advance(tags_in_work(), elapsed_s, held=bool(self._run_dir.holds()))
        if tags:
            with broker_errors(self._where):
                self._beat_script(keys=[UNACKED_INDEX_KEY], args=tags)

    def _report(self, worker: Any) -> None:
        self._registry.report(worker, self._run_dir)
        waiting = self._registry.waiting(PAUSED.open)
        self._broker_since = self._broker_since or time.monotonic()
        free = len(child_pids(worker)) - busy_children()
        self._starving.look(waiting, free, celery_state.all_total_count[0], time.monotonic())

    def _watch_device(self) -> None:
        if self._device is not None and self.problem is None and (refused := watch_device(self._device)) is not None:
            self.problem = NotReady(refused)

    def _fold_metrics(self, pid: int) -> None:
        if self._exposition is not None:
            self._exposition.fold(pid)

    def _note(self, worker: Any) -> None:
        """Write the status that the probes read."""
        reports = self._run_dir.children()
        living = child_pids(worker)
        ready = sum(1 for pid in living if pid in reports and reports[pid].state == "ready")
        status = ParentStatus(
            time.monotonic(), len(living), ready, self._broker_since, self._starving.since, ", ".join(self._paused)
        )
        self._run_dir.write_status(status)
