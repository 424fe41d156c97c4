"""The interface of the store: one method for each change of an analysis and for each query.

Every method is one transaction (a listing: one for each page). Every method can raise, besides the errors in its own
docstring, the transient errors :class:`DatabaseUnavailable` and :class:`DatabaseFault` (call again;
:mod:`tussis.shared.store.faults` has the difference), and the operator's errors :class:`DatabaseRefused`,
:class:`DiskFull` and :class:`SchemaMismatch`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine, Row, func, inspect, select, table
from sqlalchemy import column as sql_column

from tussis.shared.errors import DatabaseFault, SchemaMismatch
from tussis.shared.events import CoughEvent
from tussis.shared.forgetting import Named, Target, TargetKind
from tussis.shared.messages import Job
from tussis.shared.outcomes import JobOutcome
from tussis.shared.states import AttemptOutcome
from tussis.shared.store import (
    active_models,
    cancellations,
    claims,
    endings,
    exports,
    failures,
    forgotten,
    job_outcomes,
    leases,
    progress,
    queries,
    refusals,
    served_models,
    shadows,
    trail,
)
from tussis.shared.store import drift as drift_queries
from tussis.shared.store.cancellations import Cancellation, Verdict
from tussis.shared.store.connection import STATEMENT_TIMEOUT_S, connect_engine, place
from tussis.shared.store.drift import DriftGroup, Period
from tussis.shared.store.export_columns import ExportRows
from tussis.shared.store.exports import EventToExtract
from tussis.shared.store.faults import database_errors
from tussis.shared.store.identities import JobTaken
from tussis.shared.store.job_outcomes import JobEnd
from tussis.shared.store.known import AnalysisCriteria, Deleted, Known, known
from tussis.shared.store.records import (
    Activation,
    ActiveModel,
    Analysis,
    Attempt,
    BagProgress,
    Claimed,
    ClaimRequest,
    DeadLetter,
    Exhausted,
    FailureFilter,
    Held,
    JobAnswer,
    KnownModel,
    ModelFacts,
    NotActive,
    NotItsId,
    RefusalRequest,
    Result,
    ResultFilter,
    Segment,
    Settled,
    Shadow,
    ShadowComparison,
    StateCounts,
)
from tussis.shared.store.schema import SCHEMA_REVISION, VERSION_TABLE
from tussis.shared.store.server import check_server
from tussis.shared.store.software import Software
from tussis.shared.uris import ObjectAddress

T = TypeVar("T")

#: Tries of a transaction while other workers claim its job. Each of them makes progress, so one is enough in practice.
_TRIES = 5


class Store:
    """The store over an engine. Create it in the process that uses it: a connection does not survive a fork."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.place = place(engine.url)
        """host:port/database, for messages."""

    @classmethod
    def connect(
        cls, url: str, *, pool_size: int = 1, statement_timeout_s: int = STATEMENT_TIMEOUT_S, direct: bool = False
    ) -> Self:
        """Create a store that connects on first use. Raises :class:`SettingsInvalid` if ``url`` is not of PostgreSQL.

        A statement ends after ``statement_timeout_s``, and the wait for an answer some seconds later, with
        :class:`DatabaseUnavailable`. ``direct``: the connection has no pooler, so statements can be prepared.
        """
        return cls(connect_engine(url, pool_size=pool_size, statement_timeout_s=statement_timeout_s, direct=direct))

    def close(self) -> None:
        """Close the connections of the pool. The store can be used again and then reconnects."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def clock(self) -> float:
        """The time of the database's clock, in seconds since the epoch."""
        with database_errors(self.place), self._engine.connect() as connection:
            return float(connection.scalars(select(func.extract("epoch", func.clock_timestamp()))).one())

    def verify_schema(self) -> None:
        """Check the schema revision and the server.

        Raises :class:`SchemaMismatch` unless the database is on the revision that this code needs and can store every
        character. Raises :class:`SettingsInvalid` if a connection declared as direct has a pooler.
        """
        with database_errors(self.place), self._engine.connect() as connection:
            check_server(connection, self.place)
            found: list[str] = []
            if inspect(connection).has_table(VERSION_TABLE):
                found = list(connection.scalars(select(sql_column("version_num")).select_from(table(VERSION_TABLE))))
        if found == [SCHEMA_REVISION]:
            return
        if not found:
            raise SchemaMismatch(
                f"the database at {self.place} has no Tussis schema, this version needs revision {SCHEMA_REVISION}: "
                "run `tussis migrate`"
            )
        raise SchemaMismatch(
            f"the database at {self.place} is on schema revision {', '.join(found)}, this version of Tussis needs "
            f"{SCHEMA_REVISION}: run `tussis migrate`, or use the version of Tussis that belongs to the database"
        )

    # --- changes ---

    def register_model(self, facts: ModelFacts) -> int:
        """Register the model, which a worker serves now; returns its id.

        Raises as :func:`tussis.shared.store.served_models.register_model`.
        """
        with database_errors(self.place):
            with self._engine.begin() as connection:
                model_id = served_models.register_model(connection, facts)
            self._served(model_id)
            return model_id

    def report_served(self, facts: ModelFacts) -> ActiveModel | None:
        """Store that a worker serves the model now, if the model is registered; returns the active model."""
        with database_errors(self.place):
            with self._engine.connect() as connection:
                model_id = served_models.find_model(connection, facts)
            if model_id is not None:
                self._served(model_id)
        return self.active_model()

    def _served(self, model_id: int) -> None:
        # Two transactions: the second one waits for a lock, and must not hold the row of the model meanwhile.
        with self._engine.begin() as connection:
            active_models.report_served(connection, model_id)
        with self._engine.begin() as connection:
            active_models.take_over(connection, model_id)

    def report_left(self, facts: ModelFacts) -> None:
        """Store that a worker of the model ends. Its other workers report it again within seconds."""
        with database_errors(self.place), self._engine.begin() as connection:
            active_models.report_left(connection, facts)

    def activate(self, model: str, *, activated_by: str, force: bool = False) -> Activation:
        """Make ``name@version`` the active model, and show the results that it has as the shadow model.

        Raises as :func:`tussis.shared.store.active_models.activate`.
        """
        with database_errors(self.place), self._engine.begin() as connection:
            done = active_models.activate(connection, model, activated_by=activated_by, force=force)
            shadows.show_results(connection, model)
            trail.note(connection, "activate", activated_by, details={"model": model, "forced": force})
            return done

    def start_shadow(self, model: str, share: float, *, started_by: str) -> Shadow | None:
        """Make ``name@version`` the shadow model; returns the one before.

        Raises as :func:`tussis.shared.store.shadows.start`.
        """
        with database_errors(self.place), self._engine.begin() as connection:
            trail.note(connection, "shadow", started_by, details={"model": model, "share": share})
            return shadows.start(connection, model, share, started_by=started_by)

    def stop_shadow(self, *, stopped_by: str = "unnamed") -> Shadow | None:
        """Stop the shadow model; returns it. None: there was none."""
        with database_errors(self.place), self._engine.begin() as connection:
            if (stopped := shadows.stop(connection)) is not None:
                trail.note(connection, "shadow_stop", stopped_by, details={"model": stopped.model})
            return stopped

    def shadow(self) -> Shadow | None:
        """The shadow model; None if there is none."""
        with database_errors(self.place), self._engine.connect() as connection:
            return shadows.shadow(connection)

    def shadow_comparison(self) -> ShadowComparison | None:
        """The newest shadow model against the active one; None if there never was a shadow model."""
        with database_errors(self.place), self._engine.connect() as connection:
            return shadows.comparison(connection)

    def known_models(self) -> list[str]:
        """``name@version`` of every model that a worker has served."""
        with database_errors(self.place), self._engine.connect() as connection:
            return served_models.known_models(connection)

    def active_model(self) -> ActiveModel | None:
        """The model that answers the jobs that name none; None before a worker has registered a model."""
        with database_errors(self.place), self._engine.connect() as connection:
            return active_models.active_model(connection)

    def models(self) -> list[KnownModel]:
        """Every model that a worker has served, the active one first."""
        with database_errors(self.place), self._engine.connect() as connection:
            return active_models.models(connection)

    def claim(self, request: ClaimRequest) -> Claimed | Settled | Exhausted | Held | NotActive:
        """Claim the analysis of the request, or return why it cannot be claimed.

        A running analysis whose lease has expired is taken over, and its attempt ends as vanished. A repeated request
        is one claim. Raises :class:`ModelConflict` if the database has the model with another name, version or file,
        and :class:`JobIdMismatch` or :class:`JobIdTaken` if the job id is not that of the message.
        """
        with database_errors(self.place):
            if (first := claims.claim_first(self._engine, request)) is not None:
                return first
            return self._unless_taken(lambda connection: claims.claim(connection, request))

    def renew_leases(self, tokens: Sequence[uuid.UUID], lease_s: float) -> int:
        """Renew the leases of these attempts to ``lease_s`` seconds from now; returns the number renewed."""
        with database_errors(self.place), self._engine.begin() as connection:
            return leases.renew(connection, tokens, lease_s)

    def attempts_vanished(self, tokens: Sequence[uuid.UUID]) -> int:
        """End attempts whose processes died as vanished; returns the number that had reported no outcome."""
        with database_errors(self.place), self._engine.begin() as connection:
            return leases.vanished(connection, tokens)

    def hand_back(self, tokens: Sequence[uuid.UUID], error_class: str, message: str) -> int:
        """End attempts as handed back by the worker, not as crashed; returns the number that held their claim."""
        with database_errors(self.place), self._engine.begin() as connection:
            return leases.hand_back(connection, tokens, error_class, message)

    def bag_progress(self, analysis_id: int) -> BagProgress | None:
        """The finished bags that an earlier attempt saved; None if there are none."""
        with database_errors(self.place), self._engine.connect() as connection:
            return progress.find(connection, analysis_id)

    def save_bag_progress(self, claimed: Claimed, done: BagProgress) -> bool:
        """Save the finished bags of a long recording for the next attempt. False: the claim was taken over."""
        with database_errors(self.place), self._engine.begin() as connection:
            return progress.save(connection, claimed, done)

    def complete(self, claimed: Claimed, result: Result) -> bool:
        """Store the complete result. False: the claim was taken over and no result was stored.

        Also True if this attempt had already stored it (the reply to its commit was lost).
        """
        with database_errors(self.place):
            if endings.complete(self._engine, claimed, result):
                return True
            with self._engine.begin() as connection:
                return endings.not_completed(connection, claimed)

    def fail(
        self,
        claimed: Claimed,
        error_class: str,
        message: str,
        timings_ms: Mapping[str, float] | None = None,
        software: Software | None = None,
    ) -> bool:
        """End the attempt and the analysis as a failure. False: the claim was taken over."""
        with database_errors(self.place), self._engine.begin() as connection:
            return endings.fail(connection, claimed, error_class, message, timings_ms, software)

    def release(
        self,
        claimed: Claimed,
        outcome: AttemptOutcome,
        error_class: str | None = None,
        message: str | None = None,
        timings_ms: Mapping[str, float] | None = None,
    ) -> bool:
        """Release the claim for another attempt (TRANSIENT or HANDED_BACK). False: the claim was taken over."""
        with database_errors(self.place), self._engine.begin() as connection:
            return endings.release(connection, claimed, outcome, error_class, message, timings_ms)

    def refuse(self, request: RefusalRequest) -> int | Held | NotActive | Settled | NotItsId:
        """Fail a job without a claim; returns the id of its analysis, or :class:`Held` while another attempt holds it.

        Returns :class:`NotActive` if the job names no model, and another one than that of the request is active, and
        :class:`Settled` if the job was cancelled. Returns :class:`NotItsId` if the job id is not that of the message.

        A repeated message makes one row. An analysis that an earlier attempt at this job left open becomes the failure.
        A succeeded analysis does not change.
        """
        with database_errors(self.place):
            return self._unless_taken(lambda connection: refusals.refuse(connection, request))

    def _unless_taken(self, decide: Callable[[Connection], T]) -> T:
        """Run the transaction. Repeat it if another worker gave the job an analysis meanwhile."""
        for _ in range(_TRIES):
            with suppress(JobTaken), self._engine.begin() as connection:
                return decide(connection)
        raise DatabaseFault(f"other workers claimed the job during each of {_TRIES} tries")

    def cancel(self, jobs: Sequence[Job], cancelled_by: str) -> dict[str, Cancellation]:
        """Store the jobs as cancelled that no attempt runs. Job id -> the verdict.

        A job that a worker received during each of several tries keeps the verdict ``changed``.
        """
        found: dict[str, Cancellation] = {}
        left = list(jobs)
        for _ in range(_TRIES):
            with database_errors(self.place), self._engine.begin() as connection:
                found |= cancellations.cancel(connection, left, cancelled_by)
            left = [job for job in left if found[job.job_id].verdict is Verdict.CHANGED]
            if not left:
                break
        return found

    def dead_letter(
        self, raw: str, job_id: str | None, error_class: str, message: str, *, ended_job: bool = False
    ) -> None:
        """Store a message that could not be read as a dead letter, or count it again if it is stored.

        ``ended_job``: the ledger held this message for ``job_id``, and the message ends the job.
        """
        with database_errors(self.place), self._engine.begin() as connection:
            refusals.dead_letter(connection, raw, job_id, error_class, message, ended_job=ended_job)

    # --- queries ---

    def cancel_verdicts(self, jobs: Sequence[Job]) -> dict[str, Verdict]:
        """Job id -> what :meth:`cancel` would decide now. Nothing is written."""
        with database_errors(self.place), self._engine.connect() as connection:
            return cancellations.verdicts(connection, jobs)

    def outcome_of(self, job_id: str, enqueued_at: float, analysis_id: int) -> JobOutcome | None:
        """The outcome of a job whose answer is this analysis; None if the analysis is deleted or has no answer."""
        with database_errors(self.place), self._engine.connect() as connection:
            return job_outcomes.outcome_of(connection, job_id, enqueued_at, analysis_id)

    def ended_since(self, since: datetime, limit: int) -> list[JobEnd]:
        """The first jobs that ended since then, as :func:`tussis.shared.store.job_outcomes.ended_since`."""
        with database_errors(self.place), self._engine.connect() as connection:
            return job_outcomes.ended_since(connection, since, limit)

    def job(self, job_id: str) -> JobAnswer | None:
        """The answer of the job; None if no worker has received it."""
        with database_errors(self.place), self._engine.connect() as connection:
            return queries.job_answer(connection, job_id)

    def dead_letter_of(self, job_id: str) -> DeadLetter | None:
        """The dead letter that ended the job; None if there is none."""
        with database_errors(self.place), self._engine.connect() as connection:
            return queries.dead_letter_of(connection, job_id)

    def results(self, wanted: ResultFilter) -> Iterator[Analysis]:
        """Analyses, newest first, read in pages. Raises :class:`InvalidUri` for a wrong prefix."""
        with database_errors(self.place):
            yield from queries.results(self._engine, wanted)

    def export(self, what: ExportRows, wanted: ResultFilter) -> Generator[Sequence[Row[Any]], None, None]:
        """Rows of an export in batches, as :func:`tussis.shared.store.exports.export`. Raises :class:`InvalidUri`.

        A generator that is not read to its end holds a transaction: close it.
        """
        with database_errors(self.place):
            yield from exports.export(self._engine, what, wanted)

    def events_to_extract(self, wanted: ResultFilter) -> Generator[EventToExtract, None, None]:
        """The cough events with the facts to find their audio. As :meth:`export` otherwise."""
        with database_errors(self.place):
            yield from exports.events_to_extract(self._engine, wanted)

    def segments_of(self, analysis_id: int) -> tuple[Segment, ...]:
        """The segments of an analysis in order; empty unless it succeeded, and after they were deleted."""
        return self.segments_of_each([analysis_id]).get(analysis_id, ())

    def segments_of_each(self, analysis_ids: Sequence[int]) -> dict[int, tuple[Segment, ...]]:
        """Analysis id -> its segments, in one query."""
        with database_errors(self.place), self._engine.connect() as connection:
            return queries.segments_of(connection, analysis_ids)

    def events_of(self, analysis_id: int) -> tuple[CoughEvent, ...]:
        """The cough events of an analysis in order; empty if it has none."""
        with database_errors(self.place), self._engine.connect() as connection:
            return queries.events_of(connection, analysis_id)

    def analyses_of_key(self, address: ObjectAddress, limit: int) -> tuple[Analysis, ...]:
        """The analyses of all contents of an object, newest first, at most ``limit``."""
        with database_errors(self.place), self._engine.connect() as connection:
            return queries.analyses_of_key(connection, address, limit)

    def attempts_of(self, analysis_id: int) -> tuple[Attempt, ...]:
        """The attempts at an analysis, in order."""
        with database_errors(self.place), self._engine.connect() as connection:
            return queries.attempts_of(connection, analysis_id)

    def known(
        self, bucket: str, objects: Sequence[tuple[str, str]], criteria: AnalysisCriteria
    ) -> dict[tuple[str, str], Known | Deleted]:
        """(key, entity tag) -> its analysis that meets the criteria. Objects that never had one are omitted."""
        with database_errors(self.place), self._engine.connect() as connection:
            return known(connection, bucket, objects, criteria)

    def forgotten(self, recordings: Sequence[Named]) -> list[bool]:
        """Whether each of the recordings is forgotten: no job for it may be enqueued."""
        with database_errors(self.place):
            return forgotten.which_forgotten(self._engine, recordings)

    def analysis(self, analysis_id: int) -> Analysis | None:
        """One analysis in any state; None if no analysis has this id."""
        with database_errors(self.place), self._engine.connect() as connection:
            return failures.find(connection, analysis_id)

    def counts(self) -> StateCounts:
        """The number of analyses in each state, and the number of dead letters."""
        with database_errors(self.place), self._engine.connect() as connection:
            return queries.counts(connection)

    def drift(self, period: Period, reference: Period, *, by: str | None = None, groups: int = 1) -> list[DriftGroup]:
        """The distribution of each measure in two spans of time, as :func:`tussis.shared.store.drift.drift`."""
        with database_errors(self.place), self._engine.connect() as connection:
            return drift_queries.drift(connection, period, reference, by, groups)

    # --- failures ---

    def failures(self, wanted: FailureFilter) -> Iterator[Analysis]:
        """Failures, newest first, read in pages. Raises :class:`InvalidUri` for a wrong prefix."""
        with database_errors(self.place):
            yield from failures.failures(self._engine, wanted)

    def failures_by_class(self, wanted: FailureFilter) -> dict[str, int]:
        """Error class -> number of failures, the most frequent class first. ``wanted.limit`` is ignored."""
        with database_errors(self.place), self._engine.connect() as connection:
            return failures.by_class(connection, wanted)

    def discard(self, analysis_ids: Sequence[int], *, discarded_by: str = "unnamed") -> int:
        """Discard failures and return their number. Analyses in another state do not change."""
        with database_errors(self.place), self._engine.begin() as connection:
            done = failures.discard(connection, analysis_ids)
            objects = failures.objects_of(connection, analysis_ids)
            digests = trail.digests_of(connection, [Target(TargetKind.OBJECT, name) for name in objects])
            trail.note(connection, "discard", discarded_by, digests, {"failures": done})
            return done

    def note_deed(self, action: str, actor: str, details: dict[str, Any]) -> None:
        """Write a row of the audit trail about what is done outside the database."""
        with database_errors(self.place), self._engine.begin() as connection:
            trail.note(connection, action, actor, details=details)

    def retry_job(self, analysis: Analysis) -> Job:
        """The message that reopens a failure, for the caller. Raises :class:`FailureUnknown` if the failure is gone."""
        with database_errors(self.place), self._engine.connect() as connection:
            return failures.retry_job(connection, analysis)
