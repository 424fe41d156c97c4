"""One function for each state transition of an analysis and of an attempt.

Every UPDATE of a state in Tussis is built here, except that of the result, which is SQL in
:mod:`tussis.shared.store.hot_sql`. Each names the allowed from-states of the table in :mod:`tussis.shared.states`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Interval, Update, any_, bindparam, case, func, literal, or_
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Double, Uuid

from tussis.shared import errors
from tussis.shared.states import AnalysisState, AttemptOutcome, from_states
from tussis.shared.store.tables.analyses import analyses, attempts

#: Maximum stored length of an error message, in characters.
MAX_MESSAGE = 2000
#: The start of the transaction, by the clock of the database.
NOW = func.now()


def lease_from_now(name: str = "lease_s") -> ColumnElement[Any]:
    """The end of a lease whose seconds are the parameter ``name``. Only the clock of the database is used."""
    return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, bindparam(name, type_=Double), type_=Interval)


#: Error classes of failures that any newer message reopens, because their cause may be gone.
REOPENING = frozenset(
    kind.error_class
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.TussisError) and kind.reopens
)


# Statements are built once, so SQLAlchemy finds their compiled form without traversing them again.


def _move(to: AnalysisState, which: ColumnElement[bool] | None = None) -> Update:
    """The transition to a state from the allowed states, for the analysis ``analysis`` or for those of ``which``."""
    allowed = analyses.c.state.in_([literal(state.value) for state in from_states(to)])
    if which is None:
        # IS TRUE: by its id and not by the index on the state, as in COMPLETE of hot_sql.
        which, allowed = analyses.c.id == bindparam("analysis"), allowed.is_(True)
    return analyses.update().where(which, allowed).values(state=to.value)


def _held(move: Update) -> Update:
    return move.where(analyses.c.attempt_token == bindparam("held"))


_TO_RUNNING = _move(AnalysisState.RUNNING).values(
    started_at=NOW, finished_at=None, error_class=None, error_message=None, timings_ms={}, software_id=None
)
_TO_WAITING = _held(_move(AnalysisState.WAITING))
_ALL_TO_WAITING = (
    _move(AnalysisState.WAITING, analyses.c.attempt_token == any_(bindparam("tokens", type_=ARRAY(Uuid))))
    .values(error_class=bindparam("error_class"), error_message=bindparam("error_message"))
    .returning(analyses.c.attempt_token)
)
_TO_FAILED = _move(AnalysisState.FAILED).values(finished_at=NOW)
_TO_FAILED_HELD = _held(_TO_FAILED)


def to_running(
    connection: Connection,
    analysis_id: int,
    *,
    token: uuid.UUID,
    number: int,
    first_attempt: int,
    job_id: str,
    enqueued_at: datetime,
    worker: str,
    device: str,
) -> bool:
    """Give the claim to a new attempt. Clears the previous error of the analysis, which ``attempts`` keeps."""
    return _done(
        connection,
        _TO_RUNNING,
        analysis=analysis_id,
        attempt_token=token,
        attempts=number,
        first_attempt=first_attempt,
        job_id=job_id,
        enqueued_at=enqueued_at,
        worker=worker,
        device=device,
    )


def to_waiting(
    connection: Connection,
    analysis_id: int,
    token: uuid.UUID,
    *,
    error_class: str | None,
    message: str | None,
    timings_ms: Mapping[str, float] | None,
) -> bool:
    """Release the claim of ``token`` for another attempt."""
    return _done(
        connection,
        _TO_WAITING,
        analysis=analysis_id,
        held=token,
        error_class=error_class,
        error_message=clean(message),
        timings_ms=dict(timings_ms or {}),
    )


def all_to_waiting(
    connection: Connection, tokens: Sequence[uuid.UUID], *, error_class: str, message: str
) -> list[uuid.UUID]:
    """Release the claims of these tokens; returns the tokens that held a claim."""
    values = {"tokens": list(tokens), "error_class": error_class, "error_message": clean(message)}
    return list(connection.scalars(_ALL_TO_WAITING, values))


def to_failed(
    connection: Connection,
    analysis_id: int,
    *,
    error_class: str,
    message: str,
    token: uuid.UUID | None = None,
    timings_ms: Mapping[str, float] | None = None,
    software_id: int | None = None,
) -> bool:
    """Fail the analysis. With ``token``, only if that token still holds the claim."""
    values = {
        "error_class": error_class,
        "error_message": clean(message),
        "timings_ms": dict(timings_ms or {}),
        "software_id": software_id,
    }
    if token is None:
        return _done(connection, _TO_FAILED, analysis=analysis_id, **values)
    return _done(connection, _TO_FAILED_HELD, analysis=analysis_id, held=token, **values)


def to_discarded(connection: Connection, analysis_ids: Sequence[int]) -> int:
    """Discard failures; returns their number. ``finished_at`` remains the time of the failure."""
    move = (
        analyses.update()
        .where(analyses.c.id.in_(analysis_ids), analyses.c.state.in_(from_states(AnalysisState.DISCARDED)))
        .values(state=AnalysisState.DISCARDED.value)
    )
    return connection.execute(move).rowcount


_SHOW_SHADOW = analyses.update().where(analyses.c.id == bindparam("analysis"), analyses.c.shadow).values(shadow=False)


def show_shadow(connection: Connection, analysis_id: int) -> None:
    """Show an analysis of the shadow model as any other, because a job that is no shadow job requests it."""
    _done(connection, _SHOW_SHADOW, analysis=analysis_id)


_ATTEMPT_ENDED = (
    attempts.update().where(attempts.c.token == bindparam("attempt"), attempts.c.outcome.is_(None)).values(ended_at=NOW)
)
_ATTEMPT_HANDED_BACK = (
    attempts.update()
    .where(
        attempts.c.token == bindparam("attempt"),
        or_(attempts.c.outcome.is_(None), attempts.c.outcome == AttemptOutcome.VANISHED.value),
    )
    .values(ended_at=NOW, outcome=AttemptOutcome.HANDED_BACK.value)
)
_ATTEMPT_SUPERSEDED = (
    attempts.update()
    .where(
        attempts.c.token == bindparam("attempt"),
        or_(attempts.c.outcome.is_(None), attempts.c.outcome == AttemptOutcome.VANISHED.value),
    )
    .values(ended_at=NOW, outcome=AttemptOutcome.SUPERSEDED.value)
)
#: Ends the open attempts at an analysis: as superseded if the lease has not expired, otherwise as vanished (crashed).
_OPEN_ATTEMPTS_END = (
    attempts.update()
    .where(attempts.c.analysis_id == bindparam("analysis"), attempts.c.outcome.is_(None))
    .values(
        ended_at=NOW,
        outcome=case(
            (attempts.c.lease_expires_at > func.clock_timestamp(), AttemptOutcome.SUPERSEDED.value),
            else_=AttemptOutcome.VANISHED.value,
        ),
    )
)
_ATTEMPT = attempts.insert().values(lease_expires_at=lease_from_now())


def attempt_begins(
    connection: Connection,
    analysis_id: int,
    number: int,
    token: uuid.UUID,
    worker: str,
    *,
    exclusive: bool,
    lease_s: float = 0.0,
) -> None:
    """Insert an open attempt with a lease of ``lease_s`` seconds."""
    connection.execute(
        _ATTEMPT,
        {
            "analysis_id": analysis_id,
            "number": number,
            "token": token,
            "worker": worker,
            "exclusive": exclusive,
            "lease_s": lease_s,
        },
    )


def attempt_ended(
    connection: Connection,
    token: uuid.UUID,
    outcome: AttemptOutcome,
    *,
    error_class: str | None = None,
    message: str | None = None,
) -> None:
    """End the attempt unless it has ended."""
    _done(
        connection,
        _ATTEMPT_ENDED,
        attempt=token,
        outcome=outcome.value,
        error_class=error_class,
        error_message=clean(message),
    )


def attempt_handed_back(connection: Connection, token: uuid.UUID) -> None:
    """End an attempt that was handed back while the store was unavailable, also if it is marked as vanished."""
    _done(connection, _ATTEMPT_HANDED_BACK, attempt=token)


def attempt_superseded(connection: Connection, token: uuid.UUID) -> None:
    """End an attempt whose claim was taken over, also if it is marked as vanished."""
    _done(connection, _ATTEMPT_SUPERSEDED, attempt=token)


def open_attempts_end(connection: Connection, analysis_id: int) -> None:
    """End the open attempts: as superseded if the lease has not expired, otherwise as vanished (crashed)."""
    _done(connection, _OPEN_ATTEMPTS_END, analysis=analysis_id)


def _done(connection: Connection, move: Update, **parameters: Any) -> bool:
    return bool(connection.execute(move, parameters).rowcount)


def clean(text: str | None) -> str | None:
    """Text that PostgreSQL can store (no NUL, no lone surrogates), cut to :data:`MAX_MESSAGE` characters."""
    return None if text is None else storable(text)[:MAX_MESSAGE]


def storable(text: str) -> str:
    """Text that the type ``text`` of PostgreSQL accepts: NUL becomes U+FFFD, lone surrogates become their escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\ufffd")


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as a time in UTC."""
    return datetime.fromtimestamp(seconds, UTC)
