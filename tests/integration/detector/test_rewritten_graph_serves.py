"""A worker that serves a rewritten graph: its rows are the contract's, under every profile."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.support import reference
from tests.support.convolutions import write_convolutions
from tests.support.deployment import Deployment
from tests.support.sounds import wav
from tussis.shared.dsp.profiles import profile_named
from tussis.shared.messages import Job
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.detector.detector import Detector
from tussis.worker.detector.tuning import choice as choosing
from tussis.worker.detector.tuning.graph_cache import Choice

PROFILES = ("documented", "training", "legacy")
#: What is allowed between two ways to compute the same answer.
TOLERANCE = 1e-3


@pytest.fixture
def served(deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Choice:
    """A model for which a rewritten graph was chosen on this machine, for a worker with one child."""
    model = write_convolutions(tmp_path)
    cache = tmp_path / "cache"
    monkeypatch.setattr(choosing, "ratios", lambda original, ways: [2.0, 3.0])
    threads = len(os.sched_getaffinity(0))
    choice = choosing.decide(model, intra_op_threads=threads, cache_dir=cache)
    deployment.environment |= {"TUSSIS_MODEL": str(model), "TUSSIS_MODEL_CACHE_DIR": str(cache)}
    return choice


def assert_the_contract_s(deployment: Deployment, job: Job, profile: str, data: bytes, detector: Detector) -> None:
    audio = decode(data, Limits(), profile_named(profile).decoder)
    samples = audio.samples
    plain = reference.reference(samples, audio.rate_hz, profile)
    scores = detector.score(plain.spectrograms, np.ones(plain.spectrograms.shape[:2], dtype=bool))
    analysis = deployment.analysis(job)
    rows = deployment.store.segments_of(analysis.id)
    np.testing.assert_allclose([row.logit for row in rows], scores.segment_logits[0], atol=TOLERANCE, err_msg=profile)
    np.testing.assert_allclose(
        [row.probability for row in rows], scores.segment_probabilities[0], atol=TOLERANCE, err_msg=profile
    )
    assert analysis.bag_logit == pytest.approx(float(scores.bag_logit[0]), abs=TOLERANCE), profile


def test_every_profile_s_rows_are_the_contract_s(deployment: Deployment, served: Choice) -> None:
    """Given recordings of one segment, of many, and of silence, when a worker has them, then rows equal the plain."""
    sounds = {"short.wav": wav(0.4, seed=1), "long.wav": wav(6.3, seed=2), "rate.wav": wav(3.0, seed=3, rate=44_100)}
    jobs = {
        (name, profile): deployment.enqueue(name, data, profile=profile)
        for name, data in sounds.items()
        for profile in PROFILES
    }

    worker = deployment.worker(concurrency=1)
    deployment.wait_drained(120)

    told = worker.wait_for_event("graph_chosen", 10)
    assert (told["form"], told["known"]) == ("folded+winograd", True) == (served.form, True)
    deployment.assert_accounted()
    detector = Detector.load(Path(deployment.environment["TUSSIS_MODEL"]), intra_op_threads=1)
    for (name, profile), job in jobs.items():
        assert_the_contract_s(deployment, job, profile, sounds[name], detector)


def test_a_damaged_graph_is_made_anew_at_the_next_start(deployment: Deployment, served: Choice) -> None:
    file = Path(deployment.environment["TUSSIS_MODEL_CACHE_DIR"]) / "graphs" / f"{served.file_sha256}.onnx"
    file.write_bytes(file.read_bytes()[:-7])
    data = wav(2.0, seed=4)
    job = deployment.enqueue("a.wav", data)

    worker = deployment.worker(concurrency=1)
    deployment.wait_drained(120)

    assert worker.wait_for_event("graph_chosen", 10)["known"] is False
    deployment.assert_accounted()
    detector = Detector.load(Path(deployment.environment["TUSSIS_MODEL"]), intra_op_threads=1)
    assert_the_contract_s(deployment, job, "documented", data, detector)


def test_analyze_runs_a_model_as_a_worker_would_when_asked_to(
    deployment: Deployment, served: Choice, tmp_path: Path
) -> None:
    recording = tmp_path / "a.wav"
    recording.write_bytes(wav(2.6, seed=5))

    plain = deployment.tussis("analyze", str(recording), "--json", concurrency=1)
    fast = deployment.tussis("analyze", str(recording), "--json", "--tuned", concurrency=1)
    assert (plain.wait(90), fast.wait(90)) == (0, 0), plain.text + fast.text

    (one,), (other,) = plain.events, fast.events
    assert other["bag_probability"] == pytest.approx(one["bag_probability"], abs=TOLERANCE)
    found = [segment["probability"] for segment in other["segments"]]
    assert found == pytest.approx([segment["probability"] for segment in one["segments"]], abs=TOLERANCE)
    assert served.form not in fast.text
