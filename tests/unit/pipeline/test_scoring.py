"""The model in the calling process, as a worker's child has it."""

from __future__ import annotations

from pathlib import Path

from tussis.shared.dsp.frames import filter_bank
from tussis.shared.dsp.images import _traced
from tussis.worker.detector.detector import Detector
from tussis.worker.pipeline.scoring import OwnProcess


def test_a_warm_process_has_nothing_left_to_build_for_its_first_recording(tiny_model: Path) -> None:
    for built in (filter_bank, _traced):
        built.cache_clear()
    OwnProcess(Detector.load(tiny_model, intra_op_threads=1)).warm_up()
    assert [built.cache_info().currsize for built in (filter_bank, _traced)] == [1, 1]
