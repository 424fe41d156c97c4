"""The device path on a CPU: the same answers as the CPU worker's, whoever shares the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.models import Tiny, write_tiny
from tussis.shared.dsp.constants import HOP_SAMPLES
from tussis.shared.dsp.profiles import PROFILES, profile_named
from tussis.shared.dsp.segments import cut_segments
from tussis.shared.errors import InferenceFailed, ModelRefused
from tussis.worker.detector.detector import Detector, Scores
from tussis.worker.detector.manifest import read_manifest
from tussis.worker.detector.session import RunFailed
from tussis.worker.detector.shipped import default_model
from tussis.worker.device.arguments import DeviceArguments, Provider
from tussis.worker.device.engine import Engine, noise, padded
from tussis.worker.device.wire import Wave
from tussis.worker.pipeline.scoring import OwnProcess

#: Logits, as `tussis models check` holds a model to its neighbours.
TOLERANCE = 1e-4


def arguments(model: Path, **changes: object) -> DeviceArguments:
    plain = DeviceArguments(
        model=str(model),
        sha256=read_manifest(model).sha256,
        provider=Provider.CPU,
        device_index=0,
        threads=1,
        children=3,
        batch_segments=64,
        batch_wait_ms=2.0,
        deadline_s=60.0,
        run_dir=str(model.parent),
        cache_dir=str(model.parent / "cache"),
        metered=False,
        lifeline=-1,
        log_format="json",
        log_level="info",
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def answers(engine: Engine, *waves: Wave) -> list[Scores]:
    scores = engine.score(waves)
    assert all(isinstance(one, Scores) for one in scores), scores
    return [one for one in scores if isinstance(one, Scores)]


def assert_equal(one: Scores, other: Scores, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(one.bag_logit, other.bag_logit, atol=tolerance)
    np.testing.assert_allclose(one.segment_logits, other.segment_logits, atol=tolerance)
    np.testing.assert_allclose(one.bag_probability, other.bag_probability, atol=tolerance)
    np.testing.assert_allclose(one.segment_probabilities, other.segment_probabilities, atol=tolerance)


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> Engine:
    engine = Engine.load(arguments(tiny_model))
    engine.warm_up(arguments(tiny_model))
    return engine


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_the_answers_are_those_of_the_cpu_worker(engine: Engine, tiny_model: Path, profile: str) -> None:
    own = OwnProcess(Detector.load(tiny_model, intra_op_threads=1))
    wave = torch.from_numpy(noise(3, 5).samples[: 2 * HOP_SAMPLES + 30_000]) * 0.5
    cut = cut_segments(wave, profile_named(profile))
    theirs = own.score(own.inputs(cut, profile_named(profile)), exclusive=True)
    (ours,) = answers(engine, Wave(cut.padded.numpy(), profile))
    assert ours.segment_logits.shape == (1, len(cut.start_s))
    assert_equal(ours, theirs, 1e-5)


def test_nobody_s_answer_depends_on_the_neighbours(engine: Engine) -> None:
    """Given recordings of several lengths in one run, padded, then each gets the answer that it gets alone."""
    waves = [noise(count, seed) for seed, count in enumerate((5, 1, 32, 4))]
    for wave, shared in zip(waves, answers(engine, *waves), strict=True):
        assert shared.segment_logits.shape == (1, wave.segments)
        assert_equal(shared, answers(engine, wave)[0])


def test_nor_with_a_trained_network() -> None:
    model = default_model()
    assert model is not None
    engine = Engine.load(arguments(model, batch_segments=32))
    waves = [noise(count, seed) for seed, count in enumerate((2, 3, 1))]
    for wave, shared in zip(waves, answers(engine, *waves), strict=True):
        assert_equal(shared, answers(engine, wave)[0])


@pytest.mark.parametrize("tiny", [Tiny(segments=32), Tiny(batch=1), Tiny(batch=1, segments=32)])
def test_a_graph_of_fixed_size_gets_what_it_takes(tmp_path: Path, engine: Engine, tiny: Tiny) -> None:
    path = write_tiny(tmp_path, tiny)
    fixed = Engine.load(arguments(path))
    fixed.warm_up(arguments(path))
    wave = noise(5, 1)
    waves = [wave] if tiny.batch == 1 else [wave, noise(7, 2)]
    assert_equal(answers(fixed, *waves)[0], answers(engine, wave)[0])


def test_a_model_that_looks_at_its_neighbours_is_refused(tmp_path: Path) -> None:
    path = write_tiny(tmp_path, Tiny(looks_at_neighbours=True))
    with pytest.raises(ModelRefused, match="with the others in its run"):
        Engine.load(arguments(path)).warm_up(arguments(path))


def test_a_model_that_was_replaced_meanwhile_is_refused(tmp_path: Path) -> None:
    before = arguments(write_tiny(tmp_path))
    write_tiny(tmp_path, Tiny(logit_factor=2.0), version="2")
    with pytest.raises(ModelRefused, match="was replaced after this worker started"):
        Engine.load(before)


def test_an_unusable_answer_is_its_own_recording_s(engine: Engine) -> None:
    """Given one recording that the model answers with NaN, then its neighbour has its answer."""
    bad, good = noise(2, 1), noise(2, 2)
    bad.samples[:] = np.nan
    first, second = engine.score([bad, good])
    assert isinstance(first, InferenceFailed)
    assert isinstance(second, Scores)
    assert_equal(second, answers(engine, good)[0])
    assert engine.works()


def test_padding_copies_only_where_something_is_padded() -> None:
    stack = torch.randn(5, 3, 224, 224)
    whole, mask = padded(stack[:4], [2, 2], 2)
    assert whole.data_ptr() == stack.data_ptr()
    assert mask.all()
    filled, mask = padded(stack, [2, 3], 4)
    assert mask.tolist() == [[True, True, False, False], [True, True, True, False]]
    assert torch.equal(filled[mask], stack)
    assert filled[~mask].abs().max() == 0


def test_padding_stays_on_the_device() -> None:
    """torch's meta device mixes with no other."""
    spectrograms, mask = padded(torch.empty(6, 3, 224, 224, device="meta"), [2, 4], 4)
    assert (spectrograms.device.type, mask.device.type) == ("meta", "meta")
    assert spectrograms.shape == (2, 4, 3, 224, 224)


@pytest.mark.parametrize(
    "error", [MemoryError(), RunFailed("Failed to allocate memory for requested buffer of size 9")]
)
def test_a_device_without_memory_for_one_segment_does_not_work(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def lacking(*_: object) -> None:
        raise error

    monkeypatch.setattr(Engine, "_run", lacking)
    assert not engine.works()
    monkeypatch.undo()
    assert engine.works()
