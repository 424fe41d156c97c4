"""The lease of an attempt: until when it holds its analysis, by the database's clock.

The claim gives it, the worker's parent process renews it while the attempt lives, and every end of the attempt ends it.
Only an expired lease may be taken over.
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
from tussis.shared.store.schema import attempts


def _of_tokens() -> ColumnElement[Any]:
    return attempts.c.token == any_(bindparam("tokens", type_=ARRAY(Uuid)))


_REMAINING = (
    select(func.extract("epoch", attempts.c.lease_expires_at - func.clock_timestamp()))
    .where(attempts.c.analysis_id == bindparam("analysis"), attempts.c.outcome.is_(None))
    .with_for_update()
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
    """Seconds for which an attempt still holds the analysis; 0 when none does. Locks the open attempt's row, so that
    no renewal comes between this answer and what the transaction makes of it."""
    found = [float(seconds) for seconds in connection.scalars(_REMAINING, {"analysis": analysis_id})]
    return max([0.0, *found])


def renew(connection: Connection, tokens: Sequence[uuid.UUID], lease_s: float) -> int:
    """Renew the leases of the attempts that have not ended; returns how many those are."""
    return connection.execute(_RENEW, {"tokens": list(tokens), "lease_s": lease_s}).rowcount


def vanished(connection: Connection, tokens: Sequence[uuid.UUID]) -> int:
    """The processes of these attempts are dead: attempts without an outcome crashed. Returns how many those are."""
    return connection.execute(_VANISHED, {"tokens": list(tokens)}).rowcount


def hand_back(connection: Connection, tokens: Sequence[uuid.UUID], error_class: str, message: str) -> int:
    """Give back the analyses that these attempts hold: the worker ends them itself. Returns how many those are."""
    given_back = transitions.all_to_waiting(connection, tokens, error_class=error_class, message=message)
    for token in given_back:
        transitions.attempt_ended(
            connection, token, AttemptOutcome.HANDED_BACK, error_class=error_class, message=message
        )
    return len(given_back)
