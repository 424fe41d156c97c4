"""The complete path: a job is enqueued, analysed by a real worker on real servers, and read back from PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import redis

from tests.soak.faulty_worker import with_fault
from tests.support import reference
from tests.support.deployment import READY_S, Deployment
from tests.support.pack import entries
from tests.support.sounds import wav
from tests.support.waiting import wait_until
from tussis.shared.dsp.profiles import profile_named
from tussis.shared.errors import InvalidJob
from tussis.shared.messages import envelope
from tussis.shared.queues import Device, list_key
from tussis.shared.recommended_metadata import check_recommended
from tussis.shared.states import AnalysisState
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.detector.detector import Detector


def test_every_recording_of_the_pack_gets_the_reference_s_scores_or_its_error(
    deployment: Deployment, pack: Path, tiny_model: Path
) -> None:
    """Given the pack's formats and hostile files, when a worker analyses them, then rows equal the plain reference."""
    expected = {entry.name: entry for folder in ("formats/", "adversarial/") for entry in entries(pack, folder)}
    # The sound that is there is analysed, which the pack's manifest allows: see tests/unit/audio/test_audio_pack.py.
    expected["wav_data_size_zero.wav"] = replace(expected["wav_data_size_zero.wav"], expected="ok")
    jobs = {name: deployment.enqueue(name, (pack / entry.path).read_bytes()) for name, entry in expected.items()}

    # The pack proposes a limit of one hour.
    deployment.worker(max_duration_s=3600)
    deployment.wait_drained(180)

    deployment.assert_accounted(failures=sum(entry.error_class is not None for entry in expected.values()))
    detector = Detector.load(tiny_model, intra_op_threads=1)
    for name, entry in expected.items():
        analysis = deployment.analysis(jobs[name])
        if entry.error_class is not None:
            assert analysis.error_class == entry.error_class, name
            continue
        audio = decode((pack / entry.path).read_bytes(), Limits(), profile_named("documented").decoder)
        plain = reference.reference(audio.samples, audio.rate_hz, "documented")
        images = plain.spectrograms
        scores = detector.score(images, np.ones(images.shape[:2], dtype=bool))
        rows = deployment.store.segments_of(analysis.id)
        np.testing.assert_allclose([row.logit for row in rows], scores.segment_logits[0], atol=1e-4, err_msg=name)
        assert analysis.bag_logit == pytest.approx(float(scores.bag_logit[0]), abs=1e-4), name
        assert [row.start_s for row in rows] == [index * 0.5 for index in range(len(rows))]
        assert (analysis.decoder, analysis.rate_hz, analysis.channels) == (audio.decoder, audio.rate_hz, audio.channels)
        assert analysis.profile == "documented"


def test_profiles_make_analyses_beside_each_other(deployment: Deployment) -> None:
    data = wav(3.2, seed=3)
    jobs = {name: deployment.enqueue("a.wav", data, profile=name) for name in ("documented", "training", "legacy")}
    plain = deployment.enqueue("a.wav", data)

    deployment.worker(concurrency=1)
    deployment.wait_drained(60)

    found = {name: deployment.analysis(job) for name, job in jobs.items()}
    assert {name: analysis.profile_overridden for name, analysis in found.items()} == {
        "documented": False,
        "training": True,
        "legacy": True,
    }
    assert {name: analysis.segments for name, analysis in found.items()} == {
        "documented": 7,
        "training": 3,
        "legacy": 7,
    }
    assert found["legacy"].decoder == "pydub"
    # A job without a profile and a job that names the manifest's profile have one analysis.
    assert deployment.analysis(plain).id == found["documented"].id
    assert len({analysis.bag_logit for analysis in found.values()}) == 3


def test_a_job_twice_is_one_result_and_again_makes_another(deployment: Deployment, broker_url: str) -> None:
    data = wav(1.0)
    first = deployment.enqueue("a.wav", data, metadata={"patient": "p1"})
    deployment.worker(concurrency=2)
    deployment.wait_drained(60)
    # A second delivery after the commit, as a bare push; the same job again; and a job with `again`.
    redis.Redis.from_url(broker_url).lpush(list_key(first.queue, first.priority), envelope(first))
    deployment.enqueue("a.wav", None, etag=first.etag, job_id=first.job_id)
    deployment.wait_drained(60)
    assert len(deployment.analyses()) == 1
    assert deployment.analyses()[0].attempts == 1
    assert deployment.analyses()[0].metadata == {"patient": "p1"}
    forced = deployment.enqueue("a.wav", None, etag=first.etag, again=True)
    deployment.wait_drained(60)
    deployment.assert_accounted()
    assert deployment.analysis(forced).id != deployment.analysis(first).id
    assert deployment.analysis(forced).bag_logit == deployment.analysis(first).bag_logit


@pytest.mark.faults_only
def test_a_recording_under_many_jobs_at_once_is_one_result(deployment: Deployment) -> None:
    """A producer that does not read the entity tag from S3 sends random ids; all jobs are for one analysis."""
    first = deployment.enqueue("a.wav", with_fault("slow-2", wav(0.5)))
    for _ in range(5):
        deployment.enqueue("a.wav", None, etag=first.etag, job_id=str(uuid.uuid4()))

    deployment.worker(concurrency=5, faulty=True)
    deployment.wait_drained(120)

    deployment.assert_accounted()
    assert len(deployment.analyses()) == 1


def test_what_a_message_asks_in_vain_is_a_failure_at_once(deployment: Deployment) -> None:
    data = wav(0.5)
    jobs = {
        "model_not_served": deployment.enqueue("a.wav", data, model="other@2"),
        "unknown_profile": deployment.enqueue("b.wav", data, profile="nonsense"),
        "object_missing": deployment.enqueue("c.wav", None, etag="0" * 32),
        "object_changed": deployment.enqueue("a.wav", None, etag="1" * 32),
        "bucket_missing": deployment.enqueue("d.wav", None, etag="0" * 32),
    }
    elsewhere = jobs.pop("bucket_missing")
    unpinned = deployment.enqueue("e.wav", None)

    deployment.worker(concurrency=1, model_wait_s=1)
    deployment.wait_drained(60)

    deployment.assert_accounted(failures=6)
    assert {name: deployment.analysis(job).error_class for name, job in jobs.items()} == {name: name for name in jobs}
    assert deployment.analysis(elsewhere).error_class == "object_missing"
    assert deployment.analysis(unpinned).error_class == "object_missing"
    assert deployment.analysis(jobs["model_not_served"]).model == "other@2"


def test_an_object_that_appears_later_is_analysed_when_it_is_enqueued_again(deployment: Deployment) -> None:
    missing = deployment.enqueue("late.wav", None)
    deployment.worker(concurrency=1)
    deployment.wait_drained(60)
    assert deployment.analysis(missing).error_class == "object_missing"
    found = deployment.enqueue("late.wav", wav(1.0))
    deployment.wait_drained(60)
    assert deployment.analysis(found).state is AnalysisState.SUCCEEDED


def test_a_message_may_name_the_served_model(deployment: Deployment) -> None:
    data = wav(0.5)
    named = [deployment.enqueue("a.wav", data, model=name) for name in ("tiny", "tiny@1")]
    deployment.worker(concurrency=1)
    deployment.wait_drained(60)
    deployment.assert_accounted()
    assert len({deployment.analysis(job).id for job in named}) == 1


def test_a_message_with_metadata_that_the_producer_refuses_is_analysed(deployment: Deployment) -> None:
    """It waits since before the upgrade, or its producer is in another language. Its metadata is stored as sent."""
    sent = {"recorded_at": "2026-11-22T14:30", "site": "", "subject": 17}
    with pytest.raises(InvalidJob):
        check_recommended(sent)
    job = deployment.enqueue("a.wav", wav(0.5), metadata=sent)

    deployment.worker(concurrency=1)
    deployment.wait_drained(60)

    deployment.assert_accounted()
    assert deployment.analysis(job).state is AnalysisState.SUCCEEDED
    assert deployment.analysis(job).metadata == sent


def test_unreadable_messages_become_dead_letters_and_the_queue_moves_on(
    deployment: Deployment, broker_url: str
) -> None:
    client = redis.Redis.from_url(broker_url)
    broken = [b"junk", b"{}", b"\xff\x00", json.dumps({"headers": {"task": "tussis.analyze"}}).encode()]
    good = deployment.enqueue("a.wav", wav(0.5))
    wrong_version = json.loads(good.to_json()) | {"v": 99, "job_id": str(uuid.uuid4())}
    body = json.dumps([[], {"message": wrong_version}, {}])
    message = json.loads(envelope(good))
    message["body"] = body
    message["properties"] |= {"body_encoding": "utf-8", "delivery_tag": str(uuid.uuid4())}
    for entry in [*broken, json.dumps(message).encode()]:
        client.lpush("tussis.any", entry)

    deployment.worker(concurrency=1)
    deployment.wait_drained(60)

    deployment.assert_accounted()
    classes = sorted(str(row[0]) for row in deployment.sql("SELECT error_class FROM dead_letters"))
    assert classes == ["malformed_message"] * 4 + ["unknown_message_version"]


def test_priorities_are_kept_over_the_worker_s_queues(deployment: Deployment) -> None:
    order = [(5, "any"), (9, "cpu"), (0, "any"), (3, "cpu"), (0, "cpu"), (7, "any")]
    for number, (priority, device) in enumerate(order):
        deployment.enqueue(f"{number}.wav", wav(0.3, seed=number), priority=priority, device=Device(device))
    waiting = deployment.ledger.depth()
    assert waiting.total_waiting == len(order) == waiting.open
    gpu_only = deployment.enqueue("gpu.wav", wav(0.3, seed=99), device=Device.GPU)

    deployment.worker(concurrency=1)
    wait_until(lambda: deployment.ledger.depth().open == 1, 60, "all but the GPU's job")

    started = sorted(deployment.analyses(), key=lambda analysis: analysis.started_at)
    assert [int(analysis.key.split(".")[0]) for analysis in started] in ([4, 2, 3, 0, 5, 1], [2, 4, 3, 0, 5, 1])
    deployment.ledger.close(gpu_only)


@pytest.mark.faults_only
def test_a_child_killed_under_load_comes_back(deployment: Deployment) -> None:
    for number in range(30):
        deployment.enqueue(f"{number}.wav", wav(1.0, seed=number))
    worker = deployment.worker(concurrency=2)
    ready = [event["pid"] for event in worker.events if event.get("event") == "child_ready"]
    wait_until(lambda: deployment.store.counts().succeeded >= 2, 60, "the first results")
    os.kill(ready[0], signal.SIGKILL)

    wait_until(
        lambda: sum(event.get("event") == "child_ready" for event in worker.events) == 3, READY_S, "a third child"
    )
    deployment.wait_drained(120)
    deployment.assert_accounted()


def test_a_stop_finishes_what_is_in_work(deployment: Deployment) -> None:
    for number in range(20):
        deployment.enqueue(f"{number}.wav", wav(1.0, seed=number))
    worker = deployment.worker(concurrency=2)
    wait_until(lambda: deployment.store.counts().succeeded >= 2, 60, "the first results")
    worker.signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    depth = deployment.ledger.depth()
    assert depth.in_flight == 0
    assert depth.total_waiting == depth.open
    assert deployment.store.counts().running == 0
    deployment.worker(concurrency=2)
    deployment.wait_drained(60)
    deployment.assert_accounted()
    assert all(analysis.attempts == 1 for analysis in deployment.analyses())
