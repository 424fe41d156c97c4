"""How much faster images are than with one transform call a segment, in CPU seconds of one thread."""

from __future__ import annotations

import pytest

from tests.support.benching import Bench, reach

#: Of a short measurement.
SLACK = 0.95


@pytest.mark.performance
def test_preprocessing_leaves_one_call_a_segment_behind(benchmarks: Bench) -> None:
    wanted = {
        f"{name}, {profile}: times one call a segment": SLACK * target
        for profile in ("documented", "training", "legacy")
        for name, target in (("2s", 3.0), ("10s", 4.5))
    }
    reach(
        lambda: benchmarks.verdicts("preprocess", "--quick", "--rounds", "3", "--only", "2s", "--only", "10s"), wanted
    )
