"""The message: what is accepted, what is refused and why, and that it comes back as it went."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

import pytest

from tussis.shared.coverage import Coverage
from tussis.shared.errors import InvalidJob, InvalidUri, MalformedMessage, MessageTooLarge, UnknownMessageVersion
from tussis.shared.messages import (
    JOB_NAMESPACE,
    MAX_MESSAGE_BYTES,
    Job,
    envelope,
    job_id_for,
    normalise_etag,
    parse_message,
    parse_message_text,
    random_id,
)
from tussis.shared.queues import Device

JOB_ID = "d906b625-5a4d-5c13-8152-a4cc08c545be"
MINIMAL = {"v": 1, "job_id": JOB_ID, "bucket": "clinic", "key": "a.wav", "enqueued_at": 1_700_000_000.25}


def job(**fields: Any) -> Job:
    given: dict[str, Any] = {"job_id": JOB_ID, "bucket": "clinic", "key": "a.wav", "enqueued_at": 1.5}
    return Job(**(given | fields))


def test_a_job_comes_back_from_its_json_as_it_was() -> None:
    whole = job(
        key="ä/b c%20?#.wav",
        version_id="3sL4kq",
        etag="9b2c-2",
        model="cough@2+site-b.1",
        profile="documented",
        priority=0,
        device=Device.GPU,
        again=True,
        reopen=True,
        metadata={"site": "Süd", "nested": [{"n": 1.5, "none": None, "yes": True}], "\\u0000": "\\u0000"},
    )

    assert parse_message_text(whole.to_json()) == whole
    assert parse_message(json.loads(whole.to_json())) == whole


def nested(depth: int) -> dict[str, Any]:
    """Metadata with so many levels of nested lists and objects."""
    inner: Any = []
    for number in range(depth - 2):
        inner = [inner] if number % 2 else {"b": inner}
    return {"a": inner}


def test_metadata_as_deep_as_is_allowed_comes_back() -> None:
    assert parse_message_text(job(metadata=nested(100)).to_json()).metadata == nested(100)


@pytest.mark.parametrize("depth", [101, 500, 5000])
def test_deeper_metadata_is_refused(depth: int) -> None:
    with pytest.raises(InvalidJob, match="at most 100 levels of nested lists and objects"):
        job(metadata=nested(depth))


def test_what_a_message_leaves_out_has_its_default() -> None:
    read = parse_message(MINIMAL)

    assert (read.version_id, read.etag, read.model, read.profile) == (None, None, None, None)
    assert (read.priority, read.device, read.again, read.reopen) == (5, Device.ANY, False, False)
    assert read.metadata == {}
    assert read.uri == "s3://clinic/a.wav"
    assert read.queue == "tussis.any"


@pytest.mark.parametrize("version", [0, 2, "1", None, True, [1], "x" * 500])
def test_another_version_is_refused_as_such(version: object) -> None:
    with pytest.raises(UnknownMessageVersion, match="version") as refused:
        parse_message(MINIMAL | {"v": version})

    assert len(str(refused.value)) < 200


def test_a_message_without_a_version_is_refused() -> None:
    with pytest.raises(UnknownMessageVersion):
        parse_message({name: value for name, value in MINIMAL.items() if name != "v"})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"colour": "red"}, "unknown field 'colour'"),
        ({"job_id": "D906B625-5A4D-5C13-8152-A4CC08C545BE"}, "job_id"),
        ({"job_id": "not-a-uuid"}, "job_id"),
        ({"job_id": 5}, "job_id"),
        ({"bucket": "a"}, "bucket"),
        ({"bucket": None}, "bucket"),
        ({"key": ""}, "key"),
        ({"key": "k" * 1025}, "1025"),
        ({"key": "ä" * 513}, "1026"),
        ({"key": "a\0b"}, "NUL"),
        ({"key": "\ud800"}, "Unicode"),
        ({"enqueued_at": "now"}, "enqueued_at"),
        ({"enqueued_at": -1}, "enqueued_at"),
        ({"enqueued_at": True}, "enqueued_at"),
        ({"enqueued_at": float("nan")}, "enqueued_at"),
        ({"enqueued_at": float("inf")}, "enqueued_at"),
        ({"enqueued_at": 10**400}, "enqueued_at"),
        ({"version_id": ""}, "version_id"),
        ({"version_id": "a b"}, "version_id"),
        ({"etag": '"half'}, "etag"),
        ({"etag": '""'}, "etag"),
        ({"etag": 5}, "etag"),
        ({"etag": "e" * 1025}, "etag"),
        ({"model": "a@b@c"}, "model"),
        ({"model": "../etc"}, "model"),
        ({"model": "a+b@1"}, "model"),
        ({"profile": "Documented"}, "profile"),
        ({"priority": 10}, "priority"),
        ({"priority": -1}, "priority"),
        ({"priority": 1.5}, "priority"),
        ({"priority": "5"}, "priority"),
        ({"priority": True}, "priority"),
        ({"device": "tpu"}, "device"),
        ({"device": None}, "device"),
        ({"again": 1}, "again"),
        ({"coverage": "tail"}, "coverage"),
        ({"coverage": 1}, "coverage"),
        ({"reopen": "yes"}, "reopen"),
        ({"metadata": []}, "metadata"),
        ({"metadata": None}, "metadata"),
        ({"metadata": {"n": float("nan")}}, "metadata"),
        ({"metadata": {"text": "a\0b"}}, "NUL"),
        ({"metadata": {"a\0b": 1}}, "NUL"),
        ({"metadata": {"text": "\udc00"}}, "metadata"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(MalformedMessage, match=says) as refused:
        parse_message(MINIMAL | change)

    assert len(str(refused.value)) < 250
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["job_id", "bucket", "key", "enqueued_at"])
def test_a_missing_field_is_named(name: str) -> None:
    with pytest.raises(MalformedMessage, match=f"'{name}' is missing"):
        parse_message({field: value for field, value in MINIMAL.items() if field != name})


@pytest.mark.parametrize("raw", [None, [], "text", 5])
def test_what_is_no_object_is_refused(raw: object) -> None:
    with pytest.raises(MalformedMessage, match="not an object"):
        parse_message(raw)


@pytest.mark.parametrize("text", ["", "{", b"\xff\xfe", "[" * 100_000, '{"v": 1' + "0" * 5000 + "}"])
def test_what_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(MalformedMessage, match="not JSON"):
        parse_message_text(text)


def test_numbers_that_json_does_not_tell_apart_are_one() -> None:
    assert parse_message(MINIMAL | {"v": 1.0, "priority": 3.0, "enqueued_at": 7}).priority == 3


def test_metadata_must_be_what_json_can_say() -> None:
    for metadata in ({1: "a"}, {"t": (1, 2)}, {"s": {1}}, {"b": b"x"}):
        with pytest.raises(InvalidJob, match="metadata"):
            job(metadata=metadata)


def test_the_size_limit_is_on_the_message() -> None:
    room = MAX_MESSAGE_BYTES - len(job(metadata={"t": ""}).to_json())

    assert len(job(metadata={"t": "x" * room}).to_json().encode()) == MAX_MESSAGE_BYTES
    with pytest.raises(MessageTooLarge, match="has 65537 bytes"):
        job(metadata={"t": "x" * (room + 1)}).to_json()
    with pytest.raises(MalformedMessage, match="65537"):
        parse_message(MINIMAL | {"enqueued_at": 1.5, "metadata": {"t": "x" * (room + 1)}})


def test_the_size_is_counted_in_bytes_of_utf_8() -> None:
    with pytest.raises(MessageTooLarge):
        job(metadata={"t": "ä" * (MAX_MESSAGE_BYTES // 2)}).to_json()


def test_a_job_cannot_be_made_with_a_bad_address() -> None:
    with pytest.raises(InvalidUri):
        job(bucket="no/bucket")


def test_every_part_changes_the_job_id() -> None:
    parts = {"version_id": None, "etag": "e", "model": None, "profile": None}
    base = job_id_for("bucket", "key", **parts)
    others = [
        job_id_for("bucket2", "key", **parts),
        job_id_for("bucket", "key2", **parts),
        *(job_id_for("bucket", "key", **(parts | {name: "other"})) for name in parts),
        job_id_for("bucket", "key", version_id="e", etag=None, model=None, profile=None),
    ]

    assert len({base, *others}) == len(others) + 1
    assert base == job_id_for("bucket", "key", **parts)
    assert uuid.UUID(base).version == 5


def test_only_a_named_coverage_changes_the_job_id_and_the_message() -> None:
    """Given a job without a coverage, then a worker of the first version reads it, under the id that it had before."""
    parts = {"version_id": None, "etag": "e", "model": None, "profile": None}
    base, none, head, full = (
        job_id_for("bucket", "key", **parts, **named)
        for named in ({}, {"coverage": None}, {"coverage": "head"}, {"coverage": "full"})
    )
    assert base == none
    assert len({base, head, full}) == 3
    assert "coverage" not in json.loads(job().to_json())
    named = job(coverage=Coverage.FULL)
    assert json.loads(named.to_json())["coverage"] == "full"
    assert parse_message_text(named.to_json()) == named
    assert parse_message(json.loads(job().to_json()) | {"coverage": None}).coverage is None


@pytest.mark.parametrize("number", range(64))
def test_ids_are_as_the_uuid_module_makes_them(number: int) -> None:
    canonical = f"tussis16:bucket,{len(str(number))}:{number},0:,1:e,0:,0:,"
    given = uuid.UUID(random_id())

    made = job_id_for("bucket", str(number), version_id=None, etag="e", model=None, profile=None)

    assert made == str(uuid.uuid5(JOB_NAMESPACE, canonical))
    assert (given.version, given.variant) == (4, uuid.RFC_4122)


def test_random_ids_differ_in_every_digit_that_is_random() -> None:
    digits = list(zip(*(random_id() for _ in range(500)), strict=True))

    fixed = {place for place, seen in enumerate(digits) if len(set(seen)) == 1}

    assert fixed == {8, 13, 14, 18, 23}  # the dashes, and the version
    assert set(digits[19]) == set("89ab")  # the variant


def test_no_key_can_imitate_another_jobs_parts() -> None:
    pretending = job_id_for("bucket", "key,0:,1:e", version_id=None, etag=None, model=None, profile=None)

    assert pretending != job_id_for("bucket", "key", version_id=None, etag="e", model=None, profile=None)


@pytest.mark.parametrize("etag", ['"9b2c-2"', 'W/"9b2c-2"', "9b2c-2"])
def test_an_entity_tag_is_read_without_its_quotes(etag: str) -> None:
    assert parse_message({**MINIMAL, "etag": etag}).etag == "9b2c-2"


@pytest.mark.parametrize("etag", [5, "\ud800"])
def test_a_job_id_is_made_of_text(etag: Any) -> None:
    with pytest.raises(InvalidJob, match="must be text"):
        job_id_for("bucket", "key", version_id=None, etag=etag, model=None, profile=None)


@pytest.mark.parametrize(
    ("given", "plain"),
    [('"9b2c"', "9b2c"), ('W/"9b2c"', "9b2c"), ("9b2c-17", "9b2c-17"), ('"9b2c-17"', "9b2c-17")],
)
def test_entity_tags_lose_their_quotes(given: str, plain: str) -> None:
    assert normalise_etag(given) == plain


def test_the_envelope_carries_the_message_and_a_fresh_tag() -> None:
    first, second = json.loads(envelope(job(priority=2))), json.loads(envelope(job(priority=2)))
    args, kwargs, _ = json.loads(base64.b64decode(first["body"]))

    assert args == []
    assert parse_message(kwargs["message"]) == job(priority=2)
    assert first["headers"]["id"] == JOB_ID
    assert first["properties"]["priority"] == 2
    assert first["properties"].pop("delivery_tag") != second["properties"].pop("delivery_tag")
    assert first == second
