"""What the jail of the decoder costs a recording, in wall time."""

from __future__ import annotations

import pytest

from benchmarks.jail import TARGET_MS
from tests.support.benching import Bench, reach


@pytest.mark.performance
def test_the_jail_costs_a_recording_little(benchmarks: Bench) -> None:
    """At most three times the target: the machines of the tests do other things as well."""
    reach(
        lambda: benchmarks.verdicts("jail", "--quick"), {"ms more for a recording of 10 s": 3 * TARGET_MS}, at_most=True
    )
