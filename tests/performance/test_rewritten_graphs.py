"""The way that is chosen to run a model is not slower than the original, in CPU seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tussis.worker.detector.arithmetic import ORIGINAL
from tussis.worker.detector.detector import Detector
from tussis.worker.detector.tuning.choice import decide, open_chosen
from tussis.worker.detector.tuning.comparison import Candidate, ratios

pytestmark = [pytest.mark.performance, pytest.mark.timeout(600)]

#: What two measurements of the same graph may differ by.
SLACK = 0.05
#: A measurement that another process disturbed is made again.
TRIES = 3


def test_what_is_chosen_is_not_slower_than_the_original(random_resnet: Path, tmp_path: Path) -> None:
    """Measured for the ResNet-18: 1.16 times faster (docs/performance.md). Another machine may choose the original."""
    choice = decide(random_resnet, intra_op_threads=1, cache_dir=tmp_path)
    original = Candidate(ORIGINAL, Detector.load(random_resnet, intra_op_threads=1))
    chosen = Candidate(
        choice.form,
        open_chosen(random_resnet, choice, intra_op_threads=1, cache_dir=tmp_path),
    )

    found: list[float] = []
    while len(found) < TRIES and max(found, default=0.0) < 1 - SLACK:
        found += ratios(original, [chosen])

    assert max(found) >= 1 - SLACK, (choice, found)
