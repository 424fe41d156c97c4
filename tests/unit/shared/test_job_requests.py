"""From what upstream asks for to the job."""

from __future__ import annotations

import uuid
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from tussis.producer import JobRequest
from tussis.shared.errors import InvalidJob, InvalidUri, TussisError
from tussis.shared.job_requests import job_for, request_from_line
from tussis.shared.messages import is_own_id, job_id_for, parse_message_text
from tussis.shared.queues import Device

URI = "s3://clinic/2026/a.wav"


def test_a_pinned_request_has_a_deterministic_id() -> None:
    request = JobRequest(URI, version_id="v1", etag="e1", model="cough@2", profile="legacy")

    job = job_for(request, 1.5)

    assert job.job_id == job_id_for(
        "clinic", "2026/a.wav", version_id="v1", etag="e1", model="cough@2", profile="legacy"
    )
    assert job_for(request, 2.5).job_id == job.job_id


def test_what_does_not_choose_the_answer_does_not_change_the_id() -> None:
    plain = JobRequest(URI, etag="e1")
    dressed = JobRequest(URI, etag="e1", priority=0, device="gpu", metadata={"site": "north"})

    assert job_for(plain, 1.0).job_id == job_for(dressed, 1.0).job_id


def test_quotes_around_the_entity_tag_do_not_matter() -> None:
    assert job_for(JobRequest(URI, etag='"e1"'), 1.0) == job_for(JobRequest(URI, etag="e1"), 1.0)


@pytest.mark.parametrize("request_", [JobRequest(URI), JobRequest(URI, etag="e1", again=True)])
def test_an_unpinned_request_and_again_have_a_random_id(request_: JobRequest) -> None:
    first, second = job_for(request_, 1.0), job_for(request_, 1.0)

    assert first.job_id != second.job_id
    assert uuid.UUID(first.job_id).version == 4


def test_all_fields_reach_the_job() -> None:
    job = job_for(JobRequest(URI, "v1", "e1", "cough", "legacy", 0, "gpu", {"a": [1]}, True), 12.5)

    assert (job.bucket, job.key, job.enqueued_at) == ("clinic", "2026/a.wav", 12.5)
    assert (job.version_id, job.etag, job.model, job.profile) == ("v1", "e1", "cough", "legacy")
    assert (job.priority, job.device, job.again, job.metadata) == (0, Device.GPU, True, {"a": [1]})


def test_recommended_metadata_stays_as_sent() -> None:
    sent = {"recorded_at": "2026-11-22 14:30+0100", "site": " north ", "subject": None, "other": 1}
    assert job_for(JobRequest(URI, metadata=sent), 1.0).metadata == sent


def test_metadata_may_be_any_mapping() -> None:
    assert job_for(JobRequest(URI, metadata=MappingProxyType({"a": 1})), 1.0).metadata == {"a": 1}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"uri": "clinic/a.wav"}, "S3 URI"),
        ({"uri": None}, "S3 URI"),
        ({"etag": ""}, "etag"),
        ({"etag": 5}, "must be text"),
        ({"version_id": "a b"}, "version_id"),
        ({"model": "a b"}, "model"),
        ({"profile": "LEGACY"}, "profile"),
        ({"priority": 10}, "priority"),
        ({"priority": "1"}, "priority"),
        ({"device": "tpu"}, "device"),
        ({"metadata": [1]}, "metadata"),
        ({"metadata": {"at": object()}}, "metadata"),
        ({"metadata": {"recorded_at": "2026-11-22T14:30"}}, "recorded_at has no offset"),
        ({"metadata": {"site": ""}}, "site must be"),
        ({"metadata": MappingProxyType({"subject": 7})}, "subject must be"),
        ({"again": "yes"}, "again"),
    ],
)
def test_a_wrong_argument_is_named(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises((InvalidJob, InvalidUri), match=says):
        job_for(JobRequest(**({"uri": URI, "etag": "e1"} | wrong)), 1.0)


LIKE = JobRequest("", model="cough", priority=7)


def test_a_plain_line_is_a_uri_as_it_stands() -> None:
    assert request_from_line("s3://clinic/a b#c.wav", LIKE) == JobRequest(
        "s3://clinic/a b#c.wav", model="cough", priority=7
    )


def test_a_lines_own_fields_win_over_the_defaults() -> None:
    line = '{"uri": "s3://clinic/a.wav", "priority": 0, "etag": "e1", "metadata": {"n": 1}, "again": true}'

    assert request_from_line(line, LIKE) == JobRequest(
        "s3://clinic/a.wav", model="cough", priority=0, etag="e1", metadata={"n": 1}, again=True
    )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ("{" + '"a":[' * 100_000, "not JSON"),
        ("{}", "the field uri is missing or not a string"),
        ('{"uri": 5}', "the field uri is missing or not a string"),
        ('{"uri": "s3://clinic/a.wav", "prio": 1}', "unknown field 'prio'"),
    ],
)
def test_a_wrong_line_says_what_is_wrong(line: str, says: str) -> None:
    with pytest.raises(TussisError, match=says) as refused:
        request_from_line(line, LIKE)

    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "more",
    [
        {"etag": "e1"},
        {"etag": '"e1"'},
        {"etag": 'W/"e1"'},
        {"version_id": "v1"},
        {"version_id": "v1", "etag": "e1", "model": "cough@2", "profile": "legacy", "coverage": "full"},
        {"etag": "e1", "again": True},
        {},
    ],
)
def test_a_worker_computes_the_id_of_every_request_again(more: dict[str, Any]) -> None:
    job = job_for(JobRequest(URI, device="gpu", priority=0, metadata={"site": "north"}, **more), 1.5)

    assert is_own_id(parse_message_text(job.to_json()))

    random = job.job_id[14] == "4"
    changes: list[dict[str, Any]] = [
        {"key": "b.wav"},
        {"bucket": "other"},
        {"etag": "e2"},
        {"model": "x"},
        {"profile": "y"},
    ]
    for change in changes:
        assert is_own_id(replace(job, **change)) is random, change
    assert is_own_id(replace(job, priority=9, device=Device.CPU, metadata={}, enqueued_at=2.5))
