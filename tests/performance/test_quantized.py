"""What int8 saves, in CPU seconds of both models in turns."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.benching import has_processor_flag, reach
from tussis.worker.detector.detector import Detector
from tussis.worker.modelling.timing import speed_of

pytestmark = [pytest.mark.performance, pytest.mark.timeout(600)]


@pytest.mark.skipif(
    not has_processor_flag("avx512_vnni", "avx_vnni"),
    reason="this processor has no VNNI: int8 is promised to be faster with it only",
)
def test_int8_takes_less_than_half_of_float32s_time(random_resnet: Path, int8_resnet: Path) -> None:
    before, after = (Detector.load(path, intra_op_threads=1) for path in (random_resnet, int8_resnet))

    def measure() -> dict[str, float]:
        return {"float32 over int8, CPU": speed_of(before, after).ratio}

    reach(measure, {"float32 over int8, CPU": 2.0})
