"""What a repetition takes from the row, and what cannot be repeated."""

from __future__ import annotations

import pytest

from tests.support.reports import an_analysis
from tests.support.store import some_software
from tussis.shared.errors import NotReproducible
from tussis.shared.states import AnalysisState
from tussis.shared.store.software import Software
from tussis.worker.reproduction.repeat import check_repeatable, graph_of


@pytest.mark.parametrize(
    ("software", "graph"),
    [
        (some_software(graph="folded"), "folded"),
        (some_software(), "original"),
        (some_software(graph="folded", provider="cuda"), "original"),
        (None, "original"),
    ],
)
def test_the_graph_is_that_of_a_cpu(software: Software | None, graph: str) -> None:
    assert graph_of(an_analysis(software=software)) == graph


@pytest.mark.parametrize("state", [AnalysisState.RUNNING, AnalysisState.WAITING])
def test_an_open_analysis_is_not_repeated(state: AnalysisState) -> None:
    with pytest.raises(NotReproducible, match=f"is {state.value}: wait"):
        check_repeatable(an_analysis(probability=None, state=state, error_class=None))


@pytest.mark.parametrize("error_class", ["expired", "job_moved", "model_not_served", "needs_memory", "worker_crashed"])
def test_a_failure_of_the_workers_is_not_repeated(error_class: str) -> None:
    with pytest.raises(NotReproducible, match=r"depends on the workers.*tussis analyze s3://clinic/a\.wav"):
        check_repeatable(an_analysis(probability=None, error_class=error_class))


@pytest.mark.parametrize("error_class", ["not_audio", "internal", "object_missing", "inference_failed", "too_long"])
def test_a_failure_of_the_recording_is_repeated(error_class: str) -> None:
    for state in (AnalysisState.FAILED, AnalysisState.DISCARDED):
        check_repeatable(an_analysis(probability=None, error_class=error_class, state=state))
