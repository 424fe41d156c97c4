"""The states of an analysis and of an attempt, and the moves between them: the one table.

The store names in every UPDATE the from-states that this table allows; ``docs/guarantees.md`` draws it.
"""

from __future__ import annotations

from enum import StrEnum


class AnalysisState(StrEnum):
    """Where an analysis stands. A recording that waits in a queue has no analysis yet."""

    RUNNING = "running"
    """An attempt holds the claim."""
    WAITING = "waiting"
    """The last attempt ended in a transient fault or was handed back; the next one will come."""
    SUCCEEDED = "succeeded"
    """The result is there: bag, segments and decision."""
    FAILED = "failed"
    """No result, for the reason in ``error_class`` and ``error_message``."""
    DISCARDED = "discarded"
    """A failure that somebody put aside on purpose: a sweep leaves it alone."""


class AttemptOutcome(StrEnum):
    """How an attempt ended. An attempt that still runs has none."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """A permanent error."""
    TRANSIENT = "transient"
    """A fault that passes; tried again later."""
    HANDED_BACK = "handed_back"
    """The worker stopped, or paused, before the attempt was over."""
    SUPERSEDED = "superseded"
    """Another attempt took the claim over; this one dropped its work."""
    VANISHED = "vanished"
    """Ended without a word: a crash, a kill, a hang. The only ones that count towards the limit."""


TERMINAL = frozenset({AnalysisState.SUCCEEDED, AnalysisState.FAILED, AnalysisState.DISCARDED})

#: from-state -> to-states. ``None`` is "no row yet".
TRANSITIONS: dict[AnalysisState | None, frozenset[AnalysisState]] = {
    None: frozenset({AnalysisState.RUNNING, AnalysisState.FAILED}),
    AnalysisState.RUNNING: frozenset(
        {
            AnalysisState.RUNNING,  # a redelivery takes the claim over
            AnalysisState.WAITING,
            AnalysisState.SUCCEEDED,
            AnalysisState.FAILED,
        }
    ),
    AnalysisState.WAITING: frozenset({AnalysisState.RUNNING, AnalysisState.FAILED}),
    AnalysisState.SUCCEEDED: frozenset(),
    AnalysisState.FAILED: frozenset({AnalysisState.RUNNING, AnalysisState.DISCARDED}),
    AnalysisState.DISCARDED: frozenset({AnalysisState.RUNNING}),
}


def from_states(to: AnalysisState) -> tuple[AnalysisState, ...]:
    """The states from which ``to`` may be entered, in the enum's order (without "no row yet")."""
    return tuple(state for state in AnalysisState if to in TRANSITIONS[state])
