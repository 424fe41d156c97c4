"""Reports of jobs: from the broker, and from the database if there is access to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self

from tussis.shared.broker import connect, redact
from tussis.shared.errors import JobUnknown, NotReproducible
from tussis.shared.ledger import Ledger
from tussis.shared.outcome_reader import OutcomeReader
from tussis.shared.text import printable
from tussis.shared.uris import shown
from tussis.worker.jobs.report import describe, of_outcome, unreadable

if TYPE_CHECKING:
    from tussis.shared.settings import Settings
    from tussis.shared.store.records import JobAnswer
    from tussis.shared.store.repository import Store

#: What a report without access to the database cannot have.
FROM_BROKER = (
    "the broker only, because TUSSIS_DATABASE_URL is not set: attempts, levels, and the later segments of long"
    " recordings are missing"
)


class JobReports:
    """Makes the report of one job after the other. Without a ``store`` from the broker only."""

    def __init__(self, reader: OutcomeReader, ledger: Ledger, store: Store | None) -> None:
        self.reader = reader
        self._ledger = ledger
        self._store = store
        self._verified = False

    @classmethod
    @contextmanager
    def connect(cls, settings: Settings) -> Iterator[Self]:
        """The reports of the settings. Closes the connections at the end."""
        url = settings.need_broker()
        client, where = connect(url), redact(url)
        with ExitStack() as stack:
            stack.callback(client.close)
            store = None
            if settings.database_url is not None:
                from tussis.shared.store.repository import Store

                store = stack.enter_context(Store.connect(settings.database_url, pool_size=1))
            yield cls(OutcomeReader(client, where), Ledger(client, where), store)

    def soon(self, job_id: str) -> dict[str, Any]:
        """As :meth:`of`, but from the outcome that the broker keeps, if the job has ended and there is one."""
        status = self.reader.statuses([job_id])[job_id]
        if status.open_since is None and status.outcome is not None:
            return of_outcome(status.outcome) | ({"source": FROM_BROKER} if self._store is None else {})
        return self.of(job_id)

    def of(self, job_id: str) -> dict[str, Any]:
        """The report of a job as JSON. Raises :class:`JobUnknown`."""
        # Read the broker first: a job that ends between the two reads is then found in the store.
        opened, due = self._ledger.find(job_id), self._ledger.due_at(job_id)
        if self._store is None:
            outcome = self.reader.statuses([job_id])[job_id].outcome
            if opened is not None and (outcome is None or outcome.uri in (opened.uri, None)):
                outcome = None  # of an earlier message
            if opened is None and outcome is None:
                raise JobUnknown(
                    f"no open job has the job id {shown(job_id)}, and the broker keeps no outcome of it: check the id, "
                    "or set TUSSIS_DATABASE_URL"
                )
            report = describe(job_id, opened, due, None) if outcome is None else of_outcome(outcome)
            return report | {"source": FROM_BROKER}
        if not self._verified:
            self._store.verify_schema()
            self._verified = True
        answer = self._store.job(job_id)
        if opened is not None and answer is not None and opened.uri != answer.analysis.uri:
            opened, due = None, None  # a message that uses the id of this job: it fails
        letter = None if opened or answer else self._store.dead_letter_of(job_id)
        progress = None if answer is None else self._store.bag_progress(answer.analysis.id)
        if letter is not None:
            return unreadable(job_id, letter)
        if opened is None and answer is None:
            raise JobUnknown(f"no open job, result or failure has the job id {shown(job_id)}: check the id")
        return describe(job_id, opened, due, answer, progress)

    def ended(self, job_id: str) -> JobAnswer:
        """The stored answer of a job that has ended. It needs the store.

        Raises :class:`JobUnknown` and :class:`NotReproducible`.
        """
        assert self._store is not None
        report = self.of(job_id)
        answer = self._store.job(job_id)
        if answer is not None and report["state"] != "open":
            return answer
        reason = "is open: wait for its result or failure"
        if report["state"] == "failed":
            reason = f"failed as {report['error']['class']}: its message names no recording that was analysed"
        raise NotReproducible(f"job {printable(job_id)} {reason}")
