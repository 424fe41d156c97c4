"""What a worker's parent process does beside consuming: it waits for its children, beats, reconciles, stops them."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celery.worker import state as celery_state

from tussis.shared.broker import broker_errors, connect, redact, server_time
from tussis.shared.errors import OperatorError, TransientError
from tussis.shared.ledger import Ledger
from tussis.shared.queues import PRIORITIES, UNACKED_INDEX_KEY, WORKERS_KEY, list_key, worker_queues
from tussis.worker import logs
from tussis.worker.beats import Beats, age_limit_s
from tussis.worker.child import Start
from tussis.worker.device.host import DeviceHost
from tussis.worker.exposition import Exposition
from tussis.worker.reconciler import INTERVAL_S, Reconciler
from tussis.worker.rundir import House, Phase
from tussis.worker.transport_scripts import BEAT_SCRIPT, REPORT_SCRIPT

_log = logs.get("keeper")

#: Seconds a child may take to load the model and warm up.
READY_TIMEOUT_S = 120.0
#: Beats within one visibility timeout: several may fail before a message in work is taken for lost.
_BEATS_PER_TIMEOUT = 6
#: Seconds between two entries of a worker about itself; `tussis status` forgets one that is silent for thrice as long.
REPORT_INTERVAL_S = 5.0
#: Seconds of silence after which the entry of a worker that was killed is taken out, and between two looks for such.
_FORGET_AFTER_S = 3600.0
#: Seconds between two notes for the probes.
_NOTE_INTERVAL_S = 1.0
#: Seconds after the grace period in which a stopping worker may still end by itself.
_ESCALATE_AFTER_S = 5.0
#: Seconds without any work in hand after which a stop that has not ended is taken to hang; a good one takes one or two.
_STUCK_AFTER_S = 8.0


class NotReady(OperatorError):
    """A child of the worker did not become ready."""

    error_class = "worker_not_ready"


@dataclass
class Starving:
    """Whether the consumer takes nothing although it could. The event loop may turn and no longer ask for messages."""

    since: float | None = None
    _begun: int = -1

    def look(self, waiting: int, free: int, begun: int, now: float) -> None:
        """``waiting`` messages, ``free`` children, ``begun`` tasks so far; at ``now``."""
        if waiting and free > 0 and begun == self._begun:
            self.since = self.since or now
        else:
            self.since = None
        self._begun = begun


class Keeper:
    """The housekeeping of one worker, in a thread of its own from :meth:`start` to :meth:`close`.

    It outlives the consumer: while a stopping worker waits for its children, their messages still need beats.
    """

    def __init__(
        self,
        order: Start,
        exposition: Exposition | None = None,
        device: DeviceHost | None = None,
        before_kill: Callable[[], object] = lambda: None,
    ) -> None:
        """``before_kill`` is called before this ends the children by force."""
        self._order = order
        self._before_kill = before_kill
        self._exposition = exposition
        self._device = device
        self._settings = order.settings
        self._run_dir = order.run_dir
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        url = order.settings.need_broker()
        self._client = connect(url)
        self._where = redact(url)
        self._beat_script = self._client.register_script(BEAT_SCRIPT)
        self._report_script = self._client.register_script(REPORT_SCRIPT)
        self._reconciler = Reconciler(self._client, Ledger(self._client, self._where), order.worker)
        self._beats = Beats(age_limit_s(order.settings))
        self._started_at = time.monotonic()
        self._due: dict[str, float] = {}
        self._broker_since: float | None = None
        self._starving = Starving()
        self._idle_since: float | None = None
        self._escalated = False
        self.problem: NotReady | None = None
        """Why the worker never became ready, or cannot go on."""

    def start(self, worker: Any) -> None:
        """Wait for the children, then keep house. Raises :class:`NotReady`."""
        try:
            self._wait_for_children(worker)
        except NotReady as error:
            self.problem = error
            raise
        self._thread = threading.Thread(target=self._keep_house, args=(worker,), name="keeper", daemon=True)
        self._thread.start()

    def announce(self, worker: Any) -> None:
        """Say that the worker is ready: every child has warmed up, and the consumer takes messages."""
        _log.info(
            "worker_ready",
            worker=self._order.worker,
            device=self._order.device.value,
            children=len(_pids(worker)),
            queues=[queue.name for queue in worker.app.conf.task_queues],
            model=str(self._order.model),
        )

    def close(self) -> None:
        """Sign off, after the worker has stopped."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        self._sign_off()

    def _sign_off(self) -> None:
        try:
            with broker_errors(self._where):
                self._client.hdel(WORKERS_KEY, self._order.worker)
        except TransientError as error:
            _log.warning("not_signed_off", reason=str(error))

    def _wait_for_children(self, worker: Any) -> None:
        limit_s = READY_TIMEOUT_S if self._device is None else max(READY_TIMEOUT_S, self._device.load_s + 10)
        ends = time.monotonic() + limit_s
        while True:
            if self._device is not None:
                self._device.look()
                if self._device.refused is not None:
                    raise NotReady(self._device.refused)
            if self._is_due("loading", _NOTE_INTERVAL_S, time.monotonic()):
                self._run_dir.beat(Phase.LOADING)
            reports = self._run_dir.children()
            for report in reports.values():
                if report.state == "refused":
                    raise NotReady(report.message)
            dead = [process for process in worker.pool._pool._pool if process.exitcode is not None]
            if dead:
                raise NotReady(f"a child ended while loading {self._order.model} (status {dead[0].exitcode})")
            if all(pid in reports for pid in _pids(worker)) and (self._device is None or self._device.ready):
                self._run_dir.beat(Phase.CONNECTING)
                return
            if time.monotonic() > ends:
                raise NotReady(f"the worker did not load {self._order.model} within {limit_s:g} s")
            time.sleep(0.05)

    def _keep_house(self, worker: Any) -> None:
        beat_every = self._settings.visibility_timeout_s / _BEATS_PER_TIMEOUT
        last = time.monotonic()
        while not self._over.wait(0.5):
            now = time.monotonic()
            elapsed, last = now - last, now
            self._attend(self._watch_stop, worker)
            self._attend(self._watch_children, worker)
            self._attend(self._watch_device)
            if self._is_due("note", _NOTE_INTERVAL_S, now):
                self._attend(self._note, worker)
            self._attend(self._attend_broker, worker, beat_every, max(elapsed, beat_every), now)

    def _attend(self, duty: Callable[..., None], *arguments: Any) -> None:
        """Do one duty. Whatever befalls it, the others go on: without beats, all that is in work would start again."""
        try:
            duty(*arguments)
        except TransientError as error:
            self._broker_since = None
            _log.warning("keeper_hindered", error_class=error.error_class, reason=str(error))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            _log.error("keeper_hindered", error_class="internal", reason=reason, exc_info=True)

    def _attend_broker(self, worker: Any, beat_every: float, elapsed_s: float, now: float) -> None:
        if self._is_due("beat", beat_every, now):
            self._beat(elapsed_s)
        if self._is_due("report", REPORT_INTERVAL_S, now):
            self._report(worker)
        if self._is_due("forget", _FORGET_AFTER_S, now):
            self._forget_silent_workers()
        if self._is_due("reconcile", INTERVAL_S, now):
            with broker_errors(self._where):
                self._reconciler.look()
            if self._reconciler.unfinished:
                self._due["reconcile"] = now

    def _is_due(self, what: str, every_s: float, now: float) -> bool:
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + every_s
        return True

    def _watch_stop(self, worker: Any) -> None:
        """Pass a stop on to the children, and end those that outlast the grace period."""
        if celery_state.should_stop is not None or celery_state.should_terminate is not None:
            self._run_dir.stop()
        elapsed = self._run_dir.stopping_for()
        if elapsed is not None:
            self._bound_stop(worker, elapsed, self._settings.soft_shutdown_s + _ESCALATE_AFTER_S)

    def _bound_stop(self, worker: Any, elapsed_s: float, limit_s: float) -> None:
        """A stop ends: past the grace period by a cold shutdown, and when that or Celery's own hangs, by force.

        Celery's stop was seen to hang once with no work left. What it has not put back by then comes back after the
        visibility timeout.
        """
        now = time.monotonic()
        if celery_state.active_requests or self._idle_since is None:
            self._idle_since = now
        if now - self._idle_since > _STUCK_AFTER_S or elapsed_s > limit_s + _ESCALATE_AFTER_S:
            _log.error("stop_forced", seconds=round(elapsed_s, 1), active=len(celery_state.active_requests))
            self._before_kill()
            for pid in _pids(worker):
                os.kill(pid, signal.SIGKILL)
            self._sign_off()
            self._run_dir.remove()
            os._exit(1 if celery_state.active_requests else 0)
        if elapsed_s > limit_s and not self._escalated:
            self._escalated = True
            _log.warning("grace_exceeded", seconds=round(elapsed_s, 1))
            self._before_kill()
            os.kill(os.getpid(), signal.SIGQUIT)

    def _watch_children(self, worker: Any) -> None:
        # The files before the processes: one that has left word by now is in the list.
        reports, holds = self._run_dir.children(), self._run_dir.holds()
        living = set(_pids(worker))
        # A replacement that died while it waited for the database has reported nothing, and holds the worker up.
        for pid in {*reports, *holds} - living - {os.getpid()}:
            if self._exposition is not None:
                self._exposition.fold(pid)
            self._run_dir.forget(pid)
        for pid, report in reports.items():
            if pid in living and report.state == "refused":
                # A replacement that cannot start: the worker ends with the reason rather than run half-handed.
                _log.error("child_refused", reason=report.message)
                celery_state.should_stop = 1

    def _watch_device(self) -> None:
        """Have the device process replaced when it ended. One that cannot start ends the worker, with the reason."""
        if self._device is None or self.problem is not None:
            return
        self._device.look()
        if self._device.refused is not None:
            _log.error("device_refused", reason=self._device.refused)
            self.problem = NotReady(self._device.refused)
            celery_state.should_stop = 1

    def _beat(self, elapsed_s: float) -> None:
        """Keep the messages in work invisible to other workers."""
        tags = self._beats.advance(_tags_in_work(), elapsed_s, held=bool(self._run_dir.holds()))
        if tags:
            with broker_errors(self._where):
                self._beat_script(keys=[UNACKED_INDEX_KEY], args=tags)

    def _report(self, worker: Any) -> None:
        reports = self._run_dir.children()
        living = _pids(worker)
        ready = [reports[pid] for pid in living if pid in reports and reports[pid].state == "ready"]
        entry: dict[str, Any] = {
            "worker": self._order.worker,
            "device": self._order.device.value,
            "children": len(living),
            "ready": len(ready),
            "holding": sorted(set(self._run_dir.holds().values())),
            # As results name it; where it came from while nobody has loaded it.
            "model": ready[0].message if ready else str(self._order.model),
        }
        with broker_errors(self._where):
            # The broker's clock: whoever reads the entry may be on a machine with another one.
            now = server_time(self._client)
            entry |= {"started_at": now - (time.monotonic() - self._started_at), "seen_at": now}
            self._report_script(keys=[WORKERS_KEY], args=[self._order.worker, json.dumps(entry)])
            waiting = self._waiting()
        self._broker_since = self._broker_since or time.monotonic()
        busy = max(len(_tags_in_work()), len(celery_state.reserved_requests), len(celery_state.active_requests))
        self._starving.look(waiting, len(living) - busy, celery_state.all_total_count[0], time.monotonic())

    def _forget_silent_workers(self) -> None:
        """Workers that were killed have not signed off, and each start has a name of its own."""
        with broker_errors(self._where):
            now = server_time(self._client)
            entries = self._client.hgetall(WORKERS_KEY)
            silent = [name for name, text in entries.items() if now - json.loads(text)["seen_at"] > _FORGET_AFTER_S]
            if silent:
                self._client.hdel(WORKERS_KEY, *silent)

    def _waiting(self) -> int:
        """How many messages wait in the queues that this worker takes from."""
        pipe = self._client.pipeline(transaction=False)
        for queue in worker_queues(self._order.device):
            for priority in PRIORITIES:
                pipe.llen(list_key(queue, priority))
        return sum(pipe.execute())

    def _note(self, worker: Any) -> None:
        """Leave word for the probes."""
        reports = self._run_dir.children()
        living = _pids(worker)
        ready = sum(1 for pid in living if pid in reports and reports[pid].state == "ready")
        since = self._starving.since
        self._run_dir.keep(House(time.monotonic(), len(living), ready, self._broker_since, since))


def _pids(worker: Any) -> list[int]:
    return [process.pid for process in tuple(worker.pool._pool._pool) if process.exitcode is None]


def _tags_in_work() -> list[str]:
    """The delivery tags of all messages that this worker runs or is about to run, whichever connection brought them."""
    for _ in range(10):
        try:
            requests = {*celery_state.active_requests, *celery_state.reserved_requests}
            return [request.message.delivery_tag for request in requests]
        except RuntimeError:  # The consumer's thread changed a set under the copy.
            continue
    return []
