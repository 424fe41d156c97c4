"""The probe of ``tussis models check``: it passes what follows the contract and names what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.models import Tiny, write_tiny
from tussis.shared.errors import ModelRefused
from tussis.worker.detector.detector import Detector
from tussis.worker.detector.probe import probe


def detector_of(folder: Path, tiny: Tiny) -> Detector:
    return Detector.load(write_tiny(folder, tiny), intra_op_threads=1)


@pytest.mark.parametrize(
    "tiny",
    [
        Tiny(),
        Tiny(batch=1),
        Tiny(batch=1, segments=32),
        Tiny(bag_logit=None, segment_logits=None),
        # Batched by itself it would fail; one recording a run, it has no neighbours.
        Tiny(batch=1, looks_at_neighbours=True),
    ],
    ids=["dynamic", "batch of one", "all fixed", "no logits", "batch of one, mean over the batch"],
)
def test_a_model_that_follows_the_contract_passes(tmp_path: Path, tiny: Tiny) -> None:
    found = probe(detector_of(tmp_path, tiny))

    assert found.neighbour_shift < 1e-4
    assert found.padding_shift < 1e-4
    assert 0 < found.bag_probability < 1
    assert found.segment_ms > 0


@pytest.mark.parametrize(
    ("tiny", "said"),
    [
        (
            Tiny(looks_at_neighbours=True),
            "tiny@1: a recording's logits change by .* with other recordings in the batch",
        ),
        (Tiny(ignores_mask=True), "tiny@1: a recording's logits change by .* with masked padding"),
        (Tiny(logit_factor=0.5), "tiny@1: probabilities and the sigmoids of the logits differ by"),
        (Tiny(logit_factor=float("nan")), "tiny@1 does not run on noise"),
    ],
    ids=["neighbours", "padding", "sigmoid", "nan"],
)
def test_a_model_that_does_not_is_refused(tmp_path: Path, tiny: Tiny, said: str) -> None:
    with pytest.raises(ModelRefused, match=said) as refusal:
        probe(detector_of(tmp_path, tiny))

    assert "\n" not in str(refusal.value)
