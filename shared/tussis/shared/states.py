"""The states of an analysis, the outcomes of an attempt, and the table of allowed transitions.

Every UPDATE of the store names the from-states that this table allows. ``docs/guarantees.md`` has a diagram of it.
"""

from __future__ import annotations

from enum import StrEnum


class AnalysisState(StrEnum):
    """The state of an analysis. A recording that waits in a queue has no analysis yet."""

    RUNNING = "running"
    """An attempt holds the claim."""
    WAITING = "waiting"
    """The last attempt ended in a transient error or was handed back. Another attempt follows."""
    SUCCEEDED = "succeeded"
    """The result is stored: bag, segments and decision."""
    FAILED = "failed"
    """There is no result. ``error_class`` and ``error_message`` have the reason."""
    DISCARDED = "discarded"
    """A failure that an operator set aside. A sweep does not enqueue it again."""
    CANCELLED = "cancelled"
    """An operator cancelled the job before an attempt made a result. It is no failure."""


class AttemptOutcome(StrEnum):
    """How an attempt ended. A running attempt has no outcome."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """A permanent error."""
    TRANSIENT = "transient"
    """A transient error. The job is tried again later."""
    HANDED_BACK = "handed_back"
    """The worker stopped or paused before the attempt ended."""
    SUPERSEDED = "superseded"
    """Another attempt took over the claim. This attempt discarded its work."""
    VANISHED = "vanished"
    """The process ended without reporting an outcome: a crash, a kill, a hang. Only vanished attempts count towards the
    limit."""


TERMINAL = frozenset({AnalysisState.SUCCEEDED, AnalysisState.FAILED, AnalysisState.DISCARDED, AnalysisState.CANCELLED})

#: from-state -> to-states. ``None`` means that there is no row yet.
TRANSITIONS: dict[AnalysisState | None, frozenset[AnalysisState]] = {
    None: frozenset({AnalysisState.RUNNING, AnalysisState.FAILED, AnalysisState.CANCELLED}),
    AnalysisState.RUNNING: frozenset(
        {
            AnalysisState.RUNNING,  # a redelivery takes over the claim
            AnalysisState.WAITING,
            AnalysisState.SUCCEEDED,
            AnalysisState.FAILED,
            AnalysisState.CANCELLED,  # only after the lease of the attempt has expired
        }
    ),
    AnalysisState.WAITING: frozenset({AnalysisState.RUNNING, AnalysisState.FAILED, AnalysisState.CANCELLED}),
    AnalysisState.SUCCEEDED: frozenset(),
    AnalysisState.FAILED: frozenset({AnalysisState.RUNNING, AnalysisState.DISCARDED}),
    AnalysisState.DISCARDED: frozenset({AnalysisState.RUNNING}),
    AnalysisState.CANCELLED: frozenset({AnalysisState.RUNNING, AnalysisState.CANCELLED}),
}


def from_states(to: AnalysisState) -> tuple[AnalysisState, ...]:
    """The states from which a transition to ``to`` is allowed, in the order of the enum, without ``None``."""
    return tuple(state for state in AnalysisState if to in TRANSITIONS[state])
