"""The lease of an attempt: the time until which it holds its analysis, by the clock of the database.

The claim sets the lease. The parent of the worker renews it while the attempt runs. It ends with the attempt. Another
claim can take over only after the lease has expired.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, any_, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Uuid

from tussis.shared.states import AttemptOutcome
from tussis.shared.store import transitions
from tussis.shared.store.tables.analyses import attempts


def _of_tokens() -> ColumnElement[Any]:
    return attempts.c.token == any_(bindparam("tokens", type_=ARRAY(Uuid)))


_REMAINING = (
    select(func.extract("epoch", attempts.c.lease_expires_at - func.clock_timestamp()))
    .where(attempts.c.analysis_id == bindparam("analysis"), attempts.c.outcome.is_(None))
    .with_for_update()
)
_HELD_BY_ANOTHER = select(func.extract("epoch", attempts.c.lease_expires_at - func.clock_timestamp())).where(
    attempts.c.analysis_id == bindparam("analysis"),
    attempts.c.outcome.is_(None),
    attempts.c.token.is_distinct_from(bindparam("handed_back", type_=Uuid)),
)
_RENEW = (
    attempts.update()
    .where(_of_tokens(), attempts.c.outcome.is_(None))
    .values(lease_expires_at=transitions.lease_from_now())
)
_VANISHED = (
    attempts.update()
    .where(_of_tokens(), attempts.c.outcome.is_(None))
    .values(ended_at=transitions.NOW, outcome=AttemptOutcome.VANISHED.value)
)


def remaining_s(connection: Connection, analysis_id: int) -> float:
    """Seconds for which an attempt still holds the analysis; 0 if none does.

    Locks the row of the open attempt, so that its lease cannot be renewed before the transaction ends.
    """
    found = [float(seconds) for seconds in connection.scalars(_REMAINING, {"analysis": analysis_id})]
    return max([0.0, *found])


def held_s(connection: Connection, analysis_id: int, handed_back: uuid.UUID | None) -> float:
    """As :func:`remaining_s`, without a lock, and without the attempt ``handed_back``."""
    values = {"analysis": analysis_id, "handed_back": handed_back}
    return max([0.0, *(float(seconds) for seconds in connection.scalars(_HELD_BY_ANOTHER, values))])


def renew(connection: Connection, tokens: Sequence[uuid.UUID], lease_s: float) -> int:
    """Renew the leases of the attempts that have not ended; returns their number."""
    return connection.execute(_RENEW, {"tokens": list(tokens), "lease_s": lease_s}).rowcount


def vanished(connection: Connection, tokens: Sequence[uuid.UUID]) -> int:
    """End the attempts without an outcome as vanished, because their processes died; returns their number."""
    return connection.execute(_VANISHED, {"tokens": list(tokens)}).rowcount


def hand_back(connection: Connection, tokens: Sequence[uuid.UUID], error_class: str, message: str) -> int:
    """Hand back the analyses that these attempts hold, because the worker ends the attempts; returns their number."""
    given_back = transitions.all_to_waiting(connection, tokens, error_class=error_class, message=message)
    for token in given_back:
        transitions.attempt_ended(
            connection, token, AttemptOutcome.HANDED_BACK, error_class=error_class, message=message
        )
    return len(given_back)
