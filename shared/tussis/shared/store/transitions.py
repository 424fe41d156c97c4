"""One constructor for each move of an analysis and of an attempt. Every UPDATE of a state in Tussis is one of these,
and names the states it may start from by the table in :mod:`tussis.shared.states`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Update, and_, func, or_

from tussis.shared import errors
from tussis.shared.states import AnalysisState, AttemptOutcome, from_states
from tussis.shared.store.schema import analyses, attempts

#: Characters of an error's message that are kept.
MAX_MESSAGE = 2000
#: The time at which the transaction began, by the database's clock.
NOW = func.now()

#: Classes of failure that a newer message takes up again without asking for it: their cause may be gone.
REOPENING = frozenset(
    kind.error_class
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.TussisError) and kind.reopens
)


def _move(to: AnalysisState) -> Update:
    return analyses.update().where(analyses.c.state.in_(from_states(to))).values(state=to.value)


def to_running(
    analysis_id: int,
    *,
    token: uuid.UUID,
    number: int,
    first_attempt: int,
    job_id: str,
    enqueued_at: datetime,
    worker: str,
    device: str,
) -> Update:
    """A new attempt holds the claim. The error of the last one leaves the row; ``attempts`` keeps it."""
    return (
        _move(AnalysisState.RUNNING)
        .where(analyses.c.id == analysis_id)
        .values(
            attempt_token=token,
            attempts=number,
            first_attempt=first_attempt,
            job_id=job_id,
            enqueued_at=enqueued_at,
            worker=worker,
            device=device,
            started_at=NOW,
            finished_at=None,
            error_class=None,
            error_message=None,
            timings_ms={},
        )
    )


def to_waiting(
    analysis_id: int, token: uuid.UUID, *, error_class: str | None, message: str | None, timings_ms: Mapping[str, float]
) -> Update:
    """The holder of ``token`` gives the claim back; another attempt will come."""
    return (
        _move(AnalysisState.WAITING)
        .where(analyses.c.id == analysis_id, analyses.c.attempt_token == token)
        .values(error_class=error_class, error_message=clean(message), timings_ms=dict(timings_ms))
    )


def to_succeeded(analysis_id: int, token: uuid.UUID, answer: Mapping[str, Any]) -> Update:
    """The holder of ``token`` has the answer, given as columns of the table."""
    return (
        _move(AnalysisState.SUCCEEDED)
        .where(analyses.c.id == analysis_id, analyses.c.attempt_token == token)
        .values(finished_at=NOW, error_class=None, error_message=None, **answer)
    )


def to_failed(
    analysis_id: int,
    *,
    error_class: str,
    message: str,
    token: uuid.UUID | None = None,
    timings_ms: Mapping[str, float] | None = None,
) -> Update:
    """No answer, for good. With ``token``, only when its holder still has the claim."""
    move = _move(AnalysisState.FAILED).where(analyses.c.id == analysis_id)
    if token is not None:
        move = move.where(analyses.c.attempt_token == token)
    return move.values(
        finished_at=NOW, error_class=error_class, error_message=clean(message), timings_ms=dict(timings_ms or {})
    )


def to_discarded(analysis_ids: Sequence[int]) -> Update:
    """Failures put aside on purpose. ``finished_at`` stays that of the failure."""
    return _move(AnalysisState.DISCARDED).where(analyses.c.id.in_(analysis_ids))


def attempt_ended(
    token: uuid.UUID, outcome: AttemptOutcome, *, error_class: str | None = None, message: str | None = None
) -> Update:
    """The attempt ends, unless it has ended before.

    One exception: an attempt that was believed to have vanished and then speaks up was superseded.
    """
    still_open: ColumnElement[bool] = attempts.c.outcome.is_(None)
    if outcome is AttemptOutcome.SUPERSEDED:
        still_open = or_(still_open, attempts.c.outcome == AttemptOutcome.VANISHED.value)
    return (
        attempts.update()
        .where(and_(attempts.c.token == token, still_open))
        .values(outcome=outcome.value, ended_at=NOW, error_class=error_class, error_message=clean(message))
    )


def open_attempts_vanished(analysis_id: int) -> Update:
    """Whatever attempt still stands open is closed as ended without a word."""
    return (
        attempts.update()
        .where(attempts.c.analysis_id == analysis_id, attempts.c.outcome.is_(None))
        .values(outcome=AttemptOutcome.VANISHED.value, ended_at=NOW)
    )


def clean(text: str | None) -> str | None:
    """Text as PostgreSQL can hold it (no NUL, no lone surrogates), cut at :data:`MAX_MESSAGE` characters."""
    return None if text is None else storable(text)[:MAX_MESSAGE]


def storable(text: str) -> str:
    """Text without what PostgreSQL's ``text`` refuses: NUL becomes U+FFFD, lone surrogates their escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\ufffd")


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as a time in UTC."""
    return datetime.fromtimestamp(seconds, UTC)
