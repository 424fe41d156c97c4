"""What ``tussis job`` knows of jobs: from the broker, and from the database if there is access to it."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tussis.shared.broker import connect, redact
from tussis.shared.errors import JobUnknown, NotReproducible
from tussis.shared.ledger import Ledger
from tussis.shared.outcome_reader import OutcomeReader
from tussis.shared.text import printable
from tussis.shared.uris import shown
from tussis.worker.cli.job_views import as_iso, describe, unreadable

if TYPE_CHECKING:
    from tussis.shared.outcomes import JobOutcome
    from tussis.shared.settings import Settings
    from tussis.shared.store.records import JobAnswer

#: What a report without access to the database cannot have.
FROM_BROKER = (
    "the broker only, because TUSSIS_DATABASE_URL is not set: attempts, levels, and the later segments of long"
    " recordings are missing"
)


class JobReports:
    """Makes the report of one job after the other. Without ``TUSSIS_DATABASE_URL`` from the broker only."""

    def __init__(self, settings: Settings) -> None:
        url = settings.need_broker()
        self._settings = settings
        client, where = connect(url), redact(url)
        self.reader = OutcomeReader(client, where)
        self._ledger = Ledger(client, where)
        self._store = None
        if settings.database_url is not None:
            from tussis.shared.store.repository import Store

            self._store = Store.connect(settings.database_url, pool_size=1)
        self._verified = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._store is not None:
            self._store.close()

    def of(self, job_id: str) -> dict[str, Any]:
        """The report of a job as JSON. Raises :class:`JobUnknown`."""
        # Read the broker first: a job that ends between the two reads is then found in the store.
        opened, due = self._ledger.find(job_id), self._ledger.due_at(job_id)
        if self._store is None:
            outcome = None if opened else self.reader.statuses([job_id])[job_id].outcome
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
        letter = None if opened or answer else self._store.dead_letter_of(job_id)
        progress = None if answer is None else self._store.bag_progress(answer.analysis.id)
        if letter is not None:
            return unreadable(job_id, letter)
        if opened is None and answer is None:
            raise JobUnknown(f"no open job, result or failure has the job id {shown(job_id)}: check the id")
        return describe(job_id, opened, due, answer, progress)

    def ended(self, job_id: str) -> JobAnswer:
        """The stored answer of a job that has ended. Raises :class:`JobUnknown` and :class:`NotReproducible`."""
        self._settings.need_database()
        assert self._store is not None
        report = self.of(job_id)
        answer = self._store.job(job_id)
        if answer is not None and report["state"] != "open":
            return answer
        reason = "is open: wait for its result or failure"
        if report["state"] == "failed":
            reason = f"failed as {report['error']['class']}: its message names no recording that was analysed"
        raise NotReproducible(f"job {printable(job_id)} {reason}")


def of_outcome(outcome: JobOutcome) -> dict[str, Any]:
    """A job that has ended as JSON, from its outcome. The names are those of a report from the database."""
    report: dict[str, Any] = {"job_id": outcome.job_id, "uri": outcome.uri, "state": outcome.state.value}
    if outcome.enqueued_at is not None:
        report["enqueued_at"] = as_iso(outcome.enqueued_at)
    report["analysis_id"] = outcome.analysis_id
    if outcome.error_class is not None:
        report["error"] = {"class": outcome.error_class, "message": outcome.error_message}
    if (answer := outcome.answer) is not None:
        report |= {
            "model": answer.model,
            "profile": answer.profile,
            "coverage": answer.coverage,
            "decision": answer.decision,
            "bag_probability": answer.bag_probability,
            "threshold": answer.threshold,
            "duration_s": answer.duration_s,
            "analyzed_s": answer.analyzed_s,
            "truncated": answer.truncated,
            "events": answer.events_found,
            "cough_seconds": answer.cough_seconds,
            "warnings": list(answer.warnings),
            "segments_scored": answer.segments_scored,
            "segments": [
                {"start_s": segment.start_s, "probability": segment.probability} for segment in answer.segments
            ],
        }
    if outcome.finished_at is not None:
        report["finished_at"] = as_iso(outcome.finished_at)
    return report
