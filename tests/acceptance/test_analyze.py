"""`tussis analyze`: a stable interface, without queue and store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.deployment import Deployment
from tests.support.processes import Spawn
from tests.support.sounds import wav

KEYS = {
    "uri", "bag_probability", "decision", "threshold", "segments", "profile", "model", "duration_s", "analyzed_s",
    "truncated", "coverage", "events", "quality", "bag_logit",
}  # fmt: skip
#: Seconds for a process that loads torch on a busy machine.
SLOW_S = 120.0


def told(spawn: Spawn, *arguments: str, environment: dict[str, str] | None = None) -> tuple[int, list[dict[str, Any]]]:
    """Exit status and JSON lines of one run."""
    run = spawn("analyze", *arguments, "--json", environment=environment or {})
    status = run.wait(SLOW_S)
    return status, [json.loads(line) for line in run.stdout]


def test_a_file_gives_one_json_object(spawn: Spawn, tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.mp3"  # the extension lies: the bytes decide
    file.write_bytes(wav(3.2, seed=1))
    status, [answer] = told(spawn, str(file), "--model", str(tiny_model))
    assert status == 0
    assert answer.keys() == KEYS
    assert answer["uri"] == str(file)
    assert answer["model"] == "tiny@1"
    assert answer["profile"] == "documented"
    assert answer["decision"] is (answer["bag_probability"] > answer["threshold"])
    assert (answer["duration_s"], answer["analyzed_s"], answer["truncated"]) == (3.2, 3.2, False)
    assert [segment["index"] for segment in answer["segments"]] == list(range(7))
    assert answer["segments"][6] == {
        "index": 6,
        "start_s": 3.0,
        "end_s": 5.0,
        "probability": answer["segments"][6]["probability"],
    }


def test_the_profile_may_be_another(spawn: Spawn, tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(wav(3.2, seed=1))
    status, [answer] = told(spawn, str(file), "--model", str(tiny_model), "--profile", "training")
    assert status == 0
    assert answer["profile"] == "training"
    assert len(answer["segments"]) == 3


def test_one_that_fails_leaves_the_others_and_ends_with_1(spawn: Spawn, tiny_model: Path, tmp_path: Path) -> None:
    good, broken = tmp_path / "good.wav", tmp_path / "broken.wav"
    good.write_bytes(wav(0.5))
    broken.write_bytes(b"#EXTM3U\nfile:///etc/passwd\n")
    missing = tmp_path / "missing.wav"
    status, answers = told(spawn, str(broken), str(missing), str(good), "--model", str(tiny_model))
    assert status == 1
    assert [answer["uri"] for answer in answers] == [str(broken), str(missing), str(good)]
    assert answers[0]["error"]["class"] == "not_audio"
    assert answers[1]["error"]["class"] == "file_unreadable"
    assert answers[0].keys() == {"uri", "error"}
    assert answers[2].keys() == KEYS


def test_a_uri_gives_what_the_pipeline_stores(deployment: Deployment) -> None:
    job = deployment.enqueue("a.wav", wav(2.7, seed=5))
    deployment.worker(concurrency=1)
    deployment.wait_drained(60)
    status, answers = told(
        deployment.spawn, job.uri, deployment.bucket.uri("missing.wav"), environment=deployment.environment
    )
    assert status == 1
    assert answers[1]["error"]["class"] == "object_missing"
    analysis = deployment.analysis(job)
    assert analysis.bag_probability == pytest.approx(answers[0]["bag_probability"], abs=1e-6)
    rows = deployment.store.segments_of(analysis.id)
    assert [segment["probability"] for segment in answers[0]["segments"]] == pytest.approx(
        [row.probability for row in rows], abs=1e-6
    )
    assert answers[0]["threshold"] == analysis.threshold


def test_people_get_a_line_a_recording(spawn: Spawn, tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(wav(20.0))
    run = spawn("analyze", str(file), "--model", str(tiny_model))
    assert run.wait(SLOW_S) == 0
    [line] = run.stdout
    assert str(file) in line
    assert "first 17.5 s analysed" in line
