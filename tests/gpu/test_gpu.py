"""What only a GPU can show. Skips, and says so, where there is none: `pytest tests/gpu -ra`.

Needs the extra gpu in place of cpu. Never run where Tussis is developed: no GPU was at hand.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from tests.support.deployment import Deployment
from tests.support.sounds import wav
from tests.unit.device.test_device_engine import answers, arguments
from tussis.shared.dsp.images import images
from tussis.shared.dsp.profiles import PROFILES, profile_named
from tussis.shared.dsp.segments import cut_segments
from tussis.worker.detector.detector import Detector
from tussis.worker.device.arguments import Provider
from tussis.worker.device.engine import Engine, noise
from tussis.worker.device.wire import Wave
from tussis.worker.pipeline.scoring import OwnProcess

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() and "CUDAExecutionProvider" in onnxruntime.get_available_providers()),
    reason="no GPU here, or onnxruntime without CUDA: the CUDA parts of the GPU worker were not run",
)

#: Logits: float32 on both, other kernels. The contract's own parity tests stay those of the CPU path.
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def engine(random_resnet: Path) -> Engine:
    told = arguments(random_resnet, provider=Provider.CUDA, children=8, batch_segments=256)
    engine = Engine.load(told)
    engine.warm_up(told)
    return engine


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_images_are_those_of_the_cpu(profile: str) -> None:
    wave = torch.from_numpy(noise(20, 1).samples)
    named = profile_named(profile)
    ours = images(cut_segments(wave.cuda(), named), named)
    theirs = images(cut_segments(wave, named), named)
    assert ours.device.type == "cuda"
    assert (ours.cpu() - theirs).abs().max() <= 1e-3


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_answers_are_those_of_the_cpu_worker(engine: Engine, random_resnet: Path, profile: str) -> None:
    own = OwnProcess(Detector.load(random_resnet, intra_op_threads=1))
    named = profile_named(profile)
    cut = cut_segments(torch.from_numpy(noise(4, 2).samples), named)
    theirs = own.score(own.inputs(cut, named), exclusive=True)
    (ours,) = answers(engine, Wave(cut.padded.numpy(), profile))
    np.testing.assert_allclose(ours.bag_logit, theirs.bag_logit, atol=TOLERANCE)
    np.testing.assert_allclose(ours.segment_logits, theirs.segment_logits, atol=TOLERANCE)


def test_nobody_s_answer_depends_on_the_neighbours(engine: Engine) -> None:
    waves = [noise(count, seed) for seed, count in enumerate((20, 1, 32, 18))]
    for wave, shared in zip(waves, answers(engine, *waves), strict=True):
        (alone,) = answers(engine, wave)
        np.testing.assert_allclose(shared.bag_logit, alone.bag_logit, atol=TOLERANCE)
        np.testing.assert_allclose(shared.segment_logits, alone.segment_logits, atol=TOLERANCE)


def test_a_thousand_runs_race_nobody(engine: Engine) -> None:
    """Given the same recordings run after run, then torch's and onnxruntime's work never overtake each other."""
    waves = [noise(5, 1), noise(5, 2)]
    first = answers(engine, *waves)
    for _ in range(1000):
        for one, other in zip(first, answers(engine, *waves), strict=True):
            np.testing.assert_allclose(one.segment_logits, other.segment_logits, atol=TOLERANCE)


def test_the_worker_serves_on_the_gpu_and_its_rows_say_so(deployment: Deployment) -> None:
    jobs = [deployment.enqueue(f"{number}.wav", wav(2.0, seed=number)) for number in range(40)]
    worker = deployment.worker(kind="gpu", concurrency=8)
    deployment.wait_drained(180)
    deployment.assert_accounted()
    assert {deployment.analysis(job).device for job in jobs} == {"gpu"}
    ready = worker.wait_for_event("device_ready", 1)
    assert ready["provider"] == "cuda"
