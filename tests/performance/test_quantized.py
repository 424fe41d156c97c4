"""What int8 saves, in CPU seconds of both models in turns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.benching import reach
from tussis.worker.detector.manifest import read_manifest, read_model
from tussis.worker.modelling.quantization.quantize import segment_ms

pytestmark = [pytest.mark.performance, pytest.mark.timeout(600)]


def has_vnni() -> bool:
    """Whether the processor multiplies bytes and adds four products in one instruction."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and re.search(r"\b(avx512_vnni|avx_vnni)\b", cpuinfo.read_text()) is not None


@pytest.mark.skipif(not has_vnni(), reason="this processor has no VNNI: int8 is promised to be faster with it only")
def test_int8_takes_less_than_half_of_float32s_time(random_resnet: Path, int8_resnet: Path) -> None:
    manifest = read_manifest(random_resnet)
    files = read_model(random_resnet), read_model(int8_resnet)

    def measure() -> dict[str, float]:
        before, after = segment_ms(*files, manifest)
        return {"float32 over int8, CPU": before / after}

    reach(measure, {"float32 over int8, CPU": 2.0})
