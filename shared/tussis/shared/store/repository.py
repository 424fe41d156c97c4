"""The door to the store: one method for each thing that can happen to an analysis, and for each question about them.

Every method is one transaction (listings: one a page) and raises, beside what it says itself,
:class:`DatabaseUnavailable` or :class:`DatabaseFault` (transient: call again; :mod:`tussis.shared.store.faults` has the
difference), :class:`DatabaseRefused`, :class:`DiskFull` or :class:`SchemaMismatch` (the operator's).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from sqlalchemy import Engine, func, inspect, select, table
from sqlalchemy import column as sql_column

from tussis.shared.errors import SchemaMismatch
from tussis.shared.messages import Job
from tussis.shared.states import AttemptOutcome
from tussis.shared.store import claims, endings, failures, leases, queries, refusals, served_models
from tussis.shared.store.connection import STATEMENT_TIMEOUT_S, connect_engine, place
from tussis.shared.store.faults import database_errors
from tussis.shared.store.known import Known, Question, known
from tussis.shared.store.records import (
    Analysis,
    Attempt,
    Claimed,
    ClaimRequest,
    Counts,
    DeadLetter,
    Exhausted,
    FailureFilter,
    Held,
    JobAnswer,
    ModelFacts,
    RefusalRequest,
    Result,
    ResultFilter,
    Segment,
    Settled,
)
from tussis.shared.store.schema import SCHEMA_REVISION, VERSION_TABLE
from tussis.shared.store.server import check_server


class Store:
    """The store over an engine. Make it in the process that uses it: a connection does not survive a fork."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.place = place(engine.url)
        """host:port/database, for messages."""

    @classmethod
    def connect(
        cls, url: str, *, pool_size: int = 1, statement_timeout_s: int = STATEMENT_TIMEOUT_S, direct: bool = False
    ) -> Self:
        """A store that connects on first use. Raises :class:`SettingsInvalid` when ``url`` is none of PostgreSQL.

        A statement ends after ``statement_timeout_s``, a wait for an answer some seconds later, as
        :class:`DatabaseUnavailable`. ``direct``: no pooler is in between, so that statements can be prepared.
        """
        return cls(connect_engine(url, pool_size=pool_size, statement_timeout_s=statement_timeout_s, direct=direct))

    def close(self) -> None:
        """Close the pool's connections. The store may be used again and connects anew."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def clock(self) -> float:
        """The database's clock, in seconds since the epoch."""
        with database_errors(self.place), self._engine.connect() as connection:
            return float(connection.scalars(select(func.extract("epoch", func.clock_timestamp()))).one())

    def verify_schema(self) -> None:
        """Raises :class:`SchemaMismatch` unless the database is on the revision that this code needs, and holds every
        character; :class:`SettingsInvalid` when a pooler answers where a direct connection was announced."""
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
            f"{SCHEMA_REVISION}: run `tussis migrate`, or the version of Tussis that belongs to the database"
        )

    # --- what happens to an analysis ---

    def register_model(self, facts: ModelFacts) -> int:
        """The model's id. Raises :class:`ModelConflict` when its name and version, or its file, is known otherwise."""
        with database_errors(self.place), self._engine.begin() as connection:
            return served_models.register_model(connection, facts)

    def known_models(self) -> list[str]:
        """``name@version`` of every model that a worker has served."""
        with database_errors(self.place), self._engine.connect() as connection:
            return served_models.known_models(connection)

    def claim(self, request: ClaimRequest) -> Claimed | Settled | Exhausted | Held:
        """Claim the analysis that the request describes, or learn why not.

        A running analysis whose lease has expired is taken over: its attempt is closed as vanished. The same request
        twice is one claim. Raises :class:`ModelConflict`, where the database knows the model otherwise.
        """
        with database_errors(self.place):
            if (first := claims.claim_first(self._engine, request)) is not None:
                return first
            with self._engine.begin() as connection:
                return claims.claim(connection, request)

    def renew_leases(self, tokens: Sequence[uuid.UUID], lease_s: float) -> int:
        """Hold the claims of these attempts for ``lease_s`` seconds from now; returns how many have not ended."""
        with database_errors(self.place), self._engine.begin() as connection:
            return leases.renew(connection, tokens, lease_s)

    def attempts_vanished(self, tokens: Sequence[uuid.UUID]) -> int:
        """The processes of these attempts are dead; returns how many of them had reported no outcome."""
        with database_errors(self.place), self._engine.begin() as connection:
            return leases.vanished(connection, tokens)

    def hand_back(self, tokens: Sequence[uuid.UUID], error_class: str, message: str) -> int:
        """The worker itself ends these attempts, which counts as no crash; returns how many held their claim."""
        with database_errors(self.place), self._engine.begin() as connection:
            return leases.hand_back(connection, tokens, error_class, message)

    def complete(self, claimed: Claimed, result: Result) -> bool:
        """Write the answer, all of it or nothing. False: the claim was taken over, nothing was written.

        True also when this attempt had written it before (the answer to its commit was lost).
        """
        with database_errors(self.place):
            if endings.complete(self._engine, claimed, result):
                return True
            with self._engine.begin() as connection:
                return endings.not_completed(connection, claimed)

    def fail(
        self, claimed: Claimed, error_class: str, message: str, timings_ms: Mapping[str, float] | None = None
    ) -> bool:
        """End as a failure. False: the claim was taken over."""
        with database_errors(self.place), self._engine.begin() as connection:
            return endings.fail(connection, claimed, error_class, message, timings_ms)

    def release(
        self,
        claimed: Claimed,
        outcome: AttemptOutcome,
        error_class: str | None = None,
        message: str | None = None,
        timings_ms: Mapping[str, float] | None = None,
    ) -> bool:
        """Give the claim back (TRANSIENT or HANDED_BACK): another attempt will come. False: it was taken over."""
        with database_errors(self.place), self._engine.begin() as connection:
            return endings.release(connection, claimed, outcome, error_class, message, timings_ms)

    def refuse(self, request: RefusalRequest) -> int | Held:
        """Fail a job without a claim; returns the analysis' id, or :class:`Held` while another attempt works on it.

        The same message twice leaves one row. An analysis that an earlier attempt at this job left open becomes the
        failure; one that succeeded is left alone.
        """
        with database_errors(self.place), self._engine.begin() as connection:
            return refusals.refuse(connection, request)

    def dead_letter(
        self, raw: str, job_id: str | None, error_class: str, message: str, *, ended_job: bool = False
    ) -> None:
        """Keep a message that could not be read; the same one again only counts.

        ``ended_job``: it is the message that the ledger holds for ``job_id``, and the job ends with it.
        """
        with database_errors(self.place), self._engine.begin() as connection:
            refusals.dead_letter(connection, raw, job_id, error_class, message, ended_job=ended_job)

    # --- questions ---

    def job(self, job_id: str) -> JobAnswer | None:
        """What answers the job; None when no worker has had it."""
        with database_errors(self.place), self._engine.connect() as connection:
            return queries.job_answer(connection, job_id)

    def dead_letter_of(self, job_id: str) -> DeadLetter | None:
        """The unreadable message that a job ended with; None when it did not end so."""
        with database_errors(self.place), self._engine.connect() as connection:
            return queries.dead_letter_of(connection, job_id)

    def results(self, wanted: ResultFilter) -> Iterator[Analysis]:
        """Analyses, newest first, read a page at a time. Raises :class:`InvalidUri` for a wrong prefix."""
        with database_errors(self.place):
            yield from queries.results(self._engine, wanted)

    def segments_of(self, analysis_id: int) -> tuple[Segment, ...]:
        """The segments of an analysis in order; empty unless it succeeded."""
        return self.segments_of_each([analysis_id]).get(analysis_id, ())

    def segments_of_each(self, analysis_ids: Sequence[int]) -> dict[int, tuple[Segment, ...]]:
        """Analysis id -> its segments, in one query."""
        with database_errors(self.place), self._engine.connect() as connection:
            return queries.segments_of(connection, analysis_ids)

    def attempts_of(self, analysis_id: int) -> tuple[Attempt, ...]:
        """The attempts at an analysis, first to last."""
        with database_errors(self.place), self._engine.connect() as connection:
            return queries.attempts_of(connection, analysis_id)

    def known(
        self, bucket: str, objects: Sequence[tuple[str, str]], question: Question
    ) -> dict[tuple[str, str], Known]:
        """Of objects, as (key, entity tag), those that the question was asked of before, and what became of it."""
        with database_errors(self.place), self._engine.connect() as connection:
            return known(connection, bucket, objects, question)

    def analysis(self, analysis_id: int) -> Analysis | None:
        """One analysis, in whatever state it is; None when there is none of this id."""
        with database_errors(self.place), self._engine.connect() as connection:
            return failures.find(connection, analysis_id)

    def counts(self) -> Counts:
        """How many analyses stand where."""
        with database_errors(self.place), self._engine.connect() as connection:
            return queries.counts(connection)

    # --- failures ---

    def failures(self, wanted: FailureFilter) -> Iterator[Analysis]:
        """Failures, newest first, read a page at a time. Raises :class:`InvalidUri` for a wrong prefix."""
        with database_errors(self.place):
            yield from failures.failures(self._engine, wanted)

    def failures_by_class(self, wanted: FailureFilter) -> dict[str, int]:
        """Error class -> how many failures, the most frequent first; ``wanted.limit`` does not count."""
        with database_errors(self.place), self._engine.connect() as connection:
            return failures.by_class(connection, wanted)

    def discard(self, analysis_ids: Sequence[int]) -> int:
        """Put failures aside on purpose; returns how many were failures."""
        with database_errors(self.place), self._engine.begin() as connection:
            return failures.discard(connection, analysis_ids)

    def retry_job(self, analysis: Analysis) -> Job:
        """The message that takes a failure up again; enqueueing it is the caller's."""
        with database_errors(self.place), self._engine.connect() as connection:
            return failures.retry_job(connection, analysis)
