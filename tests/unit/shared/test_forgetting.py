"""How a recording is found in documents."""

from __future__ import annotations

import base64
import json

import pytest

from tests.support.outcomes import a_job
from tussis.shared.errors import InvalidJob
from tussis.shared.forgetting import (
    Named,
    Target,
    TargetKind,
    mentions,
    named_in_text,
    object_target,
    prefix_target,
    subject_target,
)
from tussis.shared.messages import envelope


def test_a_message_and_its_envelope_name_their_recording() -> None:
    job = a_job(metadata={"subject": "P-1"})
    expected = Named(job.bucket, job.key, "P-1")
    assert expected in named_in_text(job.to_json())
    assert expected in named_in_text(envelope(job))
    filed = json.dumps([json.loads(envelope(job)), "", "tussis.any"])
    assert expected in named_in_text(filed)


def test_a_document_inside_a_text_is_read() -> None:
    body = json.dumps({"data": {"uri": "s3://bucket/k/a b.wav"}})
    assert named_in_text(json.dumps({"body": body})) == [Named("bucket", "k/a b.wav")]
    assert named_in_text(json.dumps([base64.b64encode(body.encode()).decode()])) == [Named("bucket", "k/a b.wav")]


@pytest.mark.parametrize("text", ["", "{", "null", '{"uri": null}', '{"bucket": 1, "key": 2}', "[" * 2000])
def test_other_texts_name_nothing(text: str) -> None:
    assert named_in_text(text) == []


def test_a_target_names_what_it_says() -> None:
    one = Named("bucket", "x/1.wav", "P-1")
    assert object_target("s3://bucket/x/1.wav").names(one)
    assert not object_target("s3://bucket/x/1").names(one)
    assert prefix_target("s3://bucket/x/").names(one)
    assert prefix_target("s3://bucket").names(one)
    assert not prefix_target("s3://bucket/y").names(one)
    assert not prefix_target("s3://buckets").names(one)
    assert subject_target("P-1").names(one)
    assert not subject_target("P-").names(one)
    assert not prefix_target("s3://bucket").names(Named(None, None, "P-1"))


def test_a_subject_is_a_text() -> None:
    for wrong in ("", "a\0b"):
        with pytest.raises(InvalidJob):
            subject_target(wrong)


def test_a_damaged_text_is_searched() -> None:
    target = Target(TargetKind.OBJECT, "bucket/ä.wav")
    assert mentions('{"key": "ä.wav", "meta', target)
    assert mentions('{"key": "\\u00e4.wav", "meta', target)
    assert not mentions('{"key": "a.wav", "meta', target)
    assert not mentions("anything", prefix_target("s3://bucket"))
