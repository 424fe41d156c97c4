"""The table of states."""

from __future__ import annotations

from tussis.shared.states import TERMINAL, TRANSITIONS, AnalysisState, from_states


def test_every_state_is_in_the_table_and_can_be_reached() -> None:
    assert set(TRANSITIONS) == {None, *AnalysisState}
    assert set().union(*TRANSITIONS.values()) == set(AnalysisState)


def test_a_result_stands_for_good() -> None:
    assert not TRANSITIONS[AnalysisState.SUCCEEDED]


def test_only_terminal_states_are_left_by_hand_alone() -> None:
    assert from_states(AnalysisState.SUCCEEDED) == (AnalysisState.RUNNING,)
    assert from_states(AnalysisState.DISCARDED) == (AnalysisState.FAILED,)
    assert from_states(AnalysisState.CANCELLED) == (
        AnalysisState.RUNNING,
        AnalysisState.WAITING,
        AnalysisState.CANCELLED,
    )
    assert {
        AnalysisState.SUCCEEDED,
        AnalysisState.FAILED,
        AnalysisState.DISCARDED,
        AnalysisState.CANCELLED,
    } == TERMINAL
