"""The parent renews the leases of its children's attempts and ends the attempts of children that died.

It also reports its model to the store, over the same connection.

A child can do neither: native code may hold the interpreter lock (GIL) for minutes, and a crash runs no code.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Set
from typing import Any

from tussis.shared.broker import connect, redact
from tussis.shared.errors import OperatorError, TransientError, TussisError
from tussis.shared.ledger import Ledger
from tussis.shared.queues import ServedModel
from tussis.shared.settings import Settings
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store
from tussis.worker import logs
from tussis.worker.parent.beats import Beats, age_limit_s
from tussis.worker.parent.pool import child_pids
from tussis.worker.parent.served_model import REPORT_INTERVAL_S, ServedModelReport
from tussis.worker.status.rundir import AttemptNote, RunDir

_log = logs.get("leases")

#: Renewals within one lease: several may fail before the lease expires.
_RENEWALS = 4
#: Seconds. These statements take milliseconds. The consuming thread waits for one after a child died.
_STATEMENT_TIMEOUT_S = 2
_JOIN_S = 10.0
#: Seconds between two searches for children that died.
_LOOK_S = 1.0


class Leases:
    """The leases of one worker. A separate thread renews them from :meth:`start` to :meth:`close`."""

    def __init__(self, settings: Settings, run_dir: RunDir, model: ModelFacts) -> None:
        self._lease_s = settings.lease_s
        self._run_dir = run_dir
        self._store = Store.connect(
            settings.need_database(),
            pool_size=2,
            statement_timeout_s=_STATEMENT_TIMEOUT_S,
            direct=settings.database_direct,
        )
        self._served_model = ServedModelReport(self._store, model, run_dir)
        url = settings.need_broker()
        self._ledger = Ledger(connect(url), redact(url), ServedModel(model.name, model.version))
        self._ages = Beats(age_limit_s(settings))
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._away = False
        self._sent_anew: set[str] = set()

    def start(self, worker: Any) -> None:
        """Start the renewal. ``worker`` is Celery's worker, whose pool has the children."""
        self._thread = threading.Thread(target=self._keep, args=(worker,), name="leases", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the renewal, after the children have ended."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
        self._attempted(self._served_model.left)
        self._store.close()

    def active_model(self) -> str | None:
        """name@version of the model that answers the jobs that name none. Raises the errors of the store."""
        active = self._store.active_model()
        return None if active is None else active.model

    def child_lost(self, pid: int) -> None:
        """End the attempt of a child that died, so that its message can be claimed at once.

        While the database is not available, the message cannot be claimed either. The thread ends the attempt later.
        """
        note = self._run_dir.attempts().get(pid)
        if note is not None and not self._away:
            self._attempted(self._end, [note])

    def hand_back(self) -> Set[str]:
        """Hand back the attempts of the children before this worker kills them, so that they do not count as crashes.

        Returns the ids of the jobs whose messages were sent again because the store is not available.
        """
        notes = [note for note in self._run_dir.attempts().values() if note.job_id not in self._sent_anew]
        if notes:
            _log.warning("handed_back_for_children", attempts=len(notes))
            if not self._attempted(self._hand_back, notes):
                self._attempted(self._send_again, notes)
        return self._sent_anew

    def _hand_back(self, notes: list[AttemptNote]) -> None:
        message = "the worker stopped before the attempt ended"
        self._store.hand_back([note.token for note in notes], "stopping", message)

    def _send_again(self, notes: list[AttemptNote]) -> None:
        """Send the messages again while the store is not available.

        They carry the token, with which the next claim reports that the attempt was handed back.
        """
        for note in notes:
            job = self._ledger.find(note.job_id)
            if job is not None:
                self._ledger.send_again(job, str(note.token))
                self._sent_anew.add(note.job_id)

    def _end(self, notes: list[AttemptNote]) -> None:
        ended = self._store.attempts_vanished([note.token for note in notes])
        for note in notes:
            self._run_dir.forget_attempt(note)
        if ended:
            _log.warning("attempts_vanished", attempts=ended)

    def _keep(self, worker: Any) -> None:
        last = due = report_due = time.monotonic()
        while not self._over.wait(_LOOK_S):
            self._attempted(self._end_dead, worker)
            now = time.monotonic()
            if now >= due:
                due = now + self._lease_s / _RENEWALS
                self._attempted(self._renew, now - last)
                last = now
            if now >= report_due and self._attempted(self._served_model.report):
                report_due = now + (REPORT_INTERVAL_S if self._served_model.reported else 0)

    def _end_dead(self, worker: Any) -> None:
        # Read the notes before the processes: every child with a note is then in the list of processes, unless it died.
        notes = self._run_dir.attempts()
        if worker.pool is None:  # Celery has ended the pool.
            return
        living = child_pids(worker)
        if dead := [note for pid, note in notes.items() if pid not in living]:
            self._end(dead)

    def _renew(self, elapsed_s: float) -> None:
        tokens = {str(note.token): note.token for note in self._run_dir.attempts().values()}
        fresh = self._ages.advance(list(tokens), elapsed_s, held=bool(self._run_dir.holds()))
        if fresh:
            self._store.renew_leases([tokens[text] for text in fresh], self._lease_s)

    def _attempted(self, call: Any, *arguments: Any) -> bool:
        """Make a call. Returns whether it succeeded. After an error the thread tries again in its next round."""
        try:
            call(*arguments)
        except (TransientError, OperatorError) as error:
            self._failed(error)
            return False
        except Exception as error:
            _log.error("leases_hindered", error_class="internal", reason=f"{type(error).__name__}: {error}")
            return False
        self._away = False
        return True

    def _failed(self, error: TussisError) -> None:
        if not self._away:
            _log.warning("leases_hindered", error_class=error.error_class, reason=str(error))
        self._away = True
