"""The cost of an audit, in CPU seconds."""

from __future__ import annotations

import pytest

from benchmarks.audit import TARGET
from tests.support.benching import Bench, reach
from tussis.worker.detector.shipped import default_model


@pytest.mark.performance
@pytest.mark.timeout(1900)
def test_an_audit_costs_little_more_than_its_analyses(benchmarks: Bench) -> None:
    """At three times what is promised of a quiet machine. With a larger model the preprocessing matters less."""
    model = default_model()
    assert model is not None
    reach(
        lambda: benchmarks.verdicts("audit", "--quick", "--original", model),
        {"audit: times one analysis a variant": 3 * TARGET},
        at_most=True,
    )
