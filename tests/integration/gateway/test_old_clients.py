"""The old app's requests against a deployment: a process of the gateway, a process of a worker, real recordings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from tests.support.deployment import Deployment
from tests.support.encoding import interleaved, wav
from tests.support.gateway import start_gateway
from tests.support.old_client import post
from tests.support.pack import entries
from tests.support.processes import ROOT
from tests.support.recordings import cough_like, quantised
from tests.support.reference import legacy_from_pydub, reference
from tussis.shared.store.records import JobAnswer
from tussis.worker.detector.detector import Detector

pytestmark = pytest.mark.acceptance

#: Every fifth of the files in all formats, and files that are no recordings.
_EVERY: Final = 5


def _sample(pack: Path) -> list[tuple[str, str | None]]:
    """Files of the pack, each with the error class that the worker finds in it."""
    formats = list(entries(pack, "formats/"))[::_EVERY]
    damaged = [entry for entry in entries(pack, "adversarial/") if entry.error_class in ("not_audio", "no_samples")]
    return [(entry.path, entry.error_class) for entry in [*formats, *damaged[:2]]]


def _stored(deployment: Deployment, job_id: str) -> JobAnswer:
    answer = deployment.store.job(job_id)
    assert answer is not None
    return answer


def _compare(body: dict[str, Any], stored: JobAnswer, threshold: float | None = None) -> None:
    """The old answer has the worker's numbers, to the last bit."""
    analysis, segments = stored.analysis, stored.segments
    used = analysis.threshold if threshold is None else threshold
    assert analysis.bag_probability is not None
    assert used is not None
    cough = analysis.bag_probability > used
    assert body.pop("job_id")
    assert body.pop("message" if cough else "error")
    if cough:
        assert body.pop("model_info")["model"] == analysis.model
    probabilities = [segment.probability for segment in segments]
    assert body == {
        "coughDetected": cough,
        "confidence": analysis.bag_probability,
        "file_probability": analysis.bag_probability,
        "segment_probabilities": probabilities,
        "segment_timestamps": [[segment.start_s, segment.end_s] for segment in segments],
        "num_segments": analysis.segments,
        "threshold_used": used,
        "max_segment_probability": max(probabilities),
        "mean_segment_probability": pytest.approx(np.mean(probabilities), abs=1e-12),
    }


def test_the_app_gets_the_workers_numbers(deployment: Deployment, pack: Path) -> None:
    deployment.worker(concurrency=1)
    _, url = start_gateway(deployment, serve_old_routes="open", serve_old_wait_s=120)

    for number, (path, error_class) in enumerate(_sample(pack)):
        threshold = (None, "0.001", "0.999")[number % 3]
        reply = post(
            url,
            (pack / path).read_bytes(),
            web=bool(number % 2),
            threshold=threshold,
            file_name=Path(path).name,
            timeout_s=150,
        )
        stored = _stored(deployment, reply.body["job_id"])
        if error_class is not None:
            assert (reply.status, reply.shown_error) == (500, "Failed to process audio"), path
            assert reply.body["error_class"] == stored.analysis.error_class == error_class
            continue
        assert reply.status == 200, (path, reply.body)
        _compare(reply.body, stored, None if threshold is None else float(threshold))
        assert stored.analysis.uri.startswith(f"s3://{deployment.bucket.name}/uploads/")
        assert Path(path).stem not in stored.analysis.uri


def test_legacy_and_head_are_what_the_old_server_heard(deployment: Deployment, tiny_model: Path) -> None:
    integers = quantised(cough_like(40.0, 16_000), 2)
    data = wav(interleaved(integers), rate_hz=16_000)
    deployment.worker(concurrency=1)
    _, url = start_gateway(deployment, serve_old_routes="open", serve_old_wait_s=120, serve_old_legacy=True)

    reply = post(url, data, timeout_s=150)

    expected = reference(legacy_from_pydub(integers, 2), 16_000, "legacy")
    scores = Detector.load(tiny_model, intra_op_threads=1).score(expected.spectrograms, expected.segment_mask)
    assert reply.status == 200
    assert reply.body["num_segments"] == 32
    assert reply.body["segment_timestamps"] == [
        list(pair) for pair in zip(expected.start_s, expected.end_s, strict=True)
    ]
    assert reply.body["file_probability"] == pytest.approx(float(scores.bag_probability[0]), abs=1e-5)
    assert np.abs(np.array(reply.body["segment_probabilities"]) - scores.segment_probabilities[0]).max() <= 1e-5
    stored = _stored(deployment, reply.body["job_id"])
    assert (stored.analysis.profile, stored.analysis.coverage) == ("legacy", "head")
    _compare(reply.body, stored)


def test_a_whole_recording_has_the_segments_of_all_bags(deployment: Deployment) -> None:
    model = Path(deployment.environment["TUSSIS_MODEL"])
    manifest = model.with_suffix(".json")
    before = manifest.read_text(encoding="utf-8")
    manifest.write_text(json.dumps(json.loads(before) | {"coverage": "full"}), encoding="utf-8")
    try:
        deployment.worker(concurrency=1)
        _, url = start_gateway(deployment, serve_old_routes="open", serve_old_wait_s=120)
        reply = post(url, wav(interleaved(quantised(cough_like(50.3, 16_000), 2)), rate_hz=16_000), timeout_s=150)
    finally:
        manifest.write_text(before, encoding="utf-8")

    stored = _stored(deployment, reply.body["job_id"])
    assert (stored.analysis.coverage, reply.body["num_segments"]) == ("full", 101)
    _compare(reply.body, stored)


def test_a_script_of_an_old_client(deployment: Deployment, tmp_path: Path) -> None:
    """A process that knows nothing but the address."""
    deployment.worker(concurrency=1)
    _, url = start_gateway(deployment, serve_old_routes="open", serve_old_wait_s=120)
    path = tmp_path / "recording.wav"
    path.write_bytes(wav(interleaved(quantised(cough_like(2.0, 16_000), 2)), rate_hz=16_000))
    command = [sys.executable, "-m", "tests.support.old_client", url, str(path), "web", "0.5"]

    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=True)

    told = json.loads(ran.stdout)
    assert told["status"] == 200
    assert told["body"]["threshold_used"] == 0.5
    _compare(told["body"], _stored(deployment, told["body"]["job_id"]), 0.5)
