"""Coverage ``full`` on real servers: the rows are the plain reference's, bag by bag."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.deployment import Deployment
from tests.support.encoding import interleaved, wav
from tests.support.recordings import cough_like, quantised
from tests.support.reference import from_integers, reference
from tussis.shared.coverage import Coverage
from tussis.shared.events import find_events
from tussis.worker.detector.detector import Detector
from tussis.worker.detector.manifest import read_manifest

SECONDS, RATE = 50.3, 22050


@pytest.fixture(scope="module")
def recording() -> tuple[bytes, np.ndarray]:
    """A recording of four bags in two channels, as WAV and as samples."""
    integers = quantised(cough_like(SECONDS, RATE, channels=2), 2)
    return wav(interleaved(integers), channels=2, rate_hz=RATE), from_integers(integers, 16)


def test_every_bag_is_the_reference_s(
    deployment: Deployment, recording: tuple[bytes, np.ndarray], tiny_model: Path
) -> None:
    data, samples = recording
    full = deployment.enqueue("long.wav", data, coverage=Coverage.FULL)
    head = deployment.enqueue("long.wav", data)

    deployment.worker(concurrency=1)
    deployment.wait_drained(60)

    detector = Detector.load(tiny_model, intra_op_threads=1)
    expected = []
    for bag in range(4):
        tensors = reference(samples, RATE, "documented", bag=bag)
        expected.append(detector.score(tensors.spectrograms, tensors.segment_mask))
    analysis, segments = deployment.analysis(full), deployment.store.job(full.job_id)
    assert segments is not None
    probabilities = np.concatenate([scores.segment_probabilities[0] for scores in expected])
    found = np.array([segment.probability for segment in segments.segments])
    assert (analysis.coverage, analysis.coverage_overridden, analysis.truncated) == ("full", True, False)
    assert (analysis.segments, analysis.segments_total) == (101, 101)
    assert analysis.analyzed_s == pytest.approx(50.3, abs=1e-4)
    assert np.abs(found - probabilities).max() <= 1e-3
    highest = max(float(scores.bag_probability[0]) for scores in expected)
    assert analysis.bag_probability == pytest.approx(highest, abs=1e-3)
    bags = deployment.sql(f"SELECT bag_index, segments FROM bags WHERE analysis_id = {analysis.id} ORDER BY 1")
    assert [tuple(row) for row in bags] == [(0, 32), (1, 32), (2, 32), (3, 5)]
    starts = [segment.start_s for segment in segments.segments]
    events = find_events(starts, found.tolist(), analysis.duration_s or 0)
    assert analysis.events == len(events)
    stored = deployment.sql(f"SELECT start_s, end_s, bins FROM events WHERE analysis_id = {analysis.id} ORDER BY 1")
    assert [tuple(row) for row in stored] == [(event.start_s, event.end_s, event.bins) for event in events]
    # The head is the first bag to the last bit, and the current answer, because no other coverage was asked for.
    first = deployment.store.job(head.job_id)
    assert first is not None
    assert [segment.probability for segment in first.segments] == found[:32].tolist()
    assert (first.analysis.coverage, first.analysis.truncated, first.analysis.segments_total) == ("head", True, 101)
    assert deployment.sql("SELECT coverage FROM current") == [("head",)]


def test_the_manifest_says_what_a_job_covers_that_names_nothing(
    deployment: Deployment, recording: tuple[bytes, np.ndarray]
) -> None:
    model = Path(deployment.environment["TUSSIS_MODEL"])
    manifest = model.with_suffix(".json")
    before = manifest.read_text(encoding="utf-8")
    manifest.write_text(json.dumps(json.loads(before) | {"coverage": "full"}), encoding="utf-8")
    try:
        assert read_manifest(model).coverage == "full"
        job = deployment.enqueue("long.wav", recording[0])
        deployment.worker(concurrency=1)
        deployment.wait_drained(60)
    finally:
        manifest.write_text(before, encoding="utf-8")

    analysis = deployment.analysis(job)
    assert (analysis.coverage, analysis.coverage_overridden, analysis.segments) == ("full", False, 101)
    assert deployment.sql("SELECT coverage FROM current") == [("full",)]


def test_a_silent_recording_has_its_warning(deployment: Deployment) -> None:
    silent = deployment.enqueue("silent.wav", wav(bytes(2 * 48_000)))
    deployment.worker(concurrency=1)
    deployment.wait_drained(60)
    analysis = deployment.analysis(silent)
    assert (analysis.peak_dbfs, analysis.rms_dbfs, analysis.clipped_share, analysis.dc_offset) == (None, None, 0.0, 0.0)
    assert analysis.warnings == ["silent"]
    assert deployment.sql("SELECT warnings FROM current") == [(["silent"],)]
