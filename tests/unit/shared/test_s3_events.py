"""Every shape of notification gives the objects that were created, and nothing else."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.s3_events import eventbridge, filer, filer_entry, minio, record, records, sns, test_event
from tussis.shared.errors import S3EventUnreadable
from tussis.shared.s3_events import CreatedObject, ObjectFilter, Reason, in_order, parse

ETAG = "d41d8cd98f00b204e9800998ecf8427e"
SEQUENCER = "0A1B2C3D4E5F678901"
KEY = "2026/11/a b+c%41 ü&?#.wav"
FOUND = CreatedObject("clinic", KEY, None, ETAG, 1024, SEQUENCER)
TOLD = {
    "records": records(record("clinic", KEY)),
    "sns": json.dumps(sns(records(record("clinic", KEY)))),
    "eventbridge": eventbridge("clinic", KEY),
    "eventbridge through sns": json.dumps(sns(eventbridge("clinic", KEY))),
    "minio": minio("clinic", KEY),
    "ceph": records(record("clinic", KEY, event="s3:ObjectCreated:Put", source="ceph:s3")),
    "double": json.dumps(records(record("clinic", KEY))),
    "double through sns": json.dumps(json.dumps(sns(json.dumps(records(record("clinic", KEY)))))),
    "list": json.dumps([json.loads(eventbridge("clinic", KEY))]),
}
# Keys as S3 allows them.
keys = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=60).filter(
    lambda key: not key.endswith("/")
)


def left_out(body: str) -> list[tuple[Reason, str]]:
    told = parse(body)
    assert told.created == ()
    return [(entry.reason, entry.what) for entry in told.left_out]


@pytest.mark.parametrize("shape", TOLD)
def test_every_shape_names_the_object(shape: str) -> None:
    told = parse(TOLD[shape])

    assert (told.created, told.left_out) == ((FOUND,), ())
    assert parse(TOLD[shape].encode()) == told
    assert told.created[0].uri == f"s3://clinic/{KEY}"


@pytest.mark.parametrize(("told", "version"), [("v1", "v1"), ("null", "null"), ("", None), (None, None)])
def test_a_version_is_kept_and_none_is_written_in_several_ways(told: str | None, version: str | None) -> None:
    about: dict[str, Any] = {"version-id": told}
    for body in (records(record("clinic", KEY, versionId=told)), eventbridge("clinic", KEY, **about)):
        assert parse(body).created[0].version_id == version


def test_quotes_around_an_entity_tag_are_removed_and_an_odd_one_is_kept() -> None:
    tags = ['"abc"', "abc-2", 'W/"x"', None]
    told = parse(records(*(record("clinic", str(number), eTag=tag) for number, tag in enumerate(tags))))

    assert [found.etag for found in told.created] == ["abc", "abc-2", "x", None]


def test_several_records_and_none() -> None:
    told = parse(records(record("clinic", "a"), record("other", "b"), record("clinic", "a")))

    assert [found.uri for found in told.created] == ["s3://clinic/a", "s3://other/b", "s3://clinic/a"]
    assert parse('{"Records": []}') == parse("[]")
    assert parse('{"Records": []}').created == ()


def test_what_is_no_created_object_is_left_out_with_its_reason() -> None:
    assert left_out(test_event("clinic")) == [(Reason.TEST, "clinic")]
    assert left_out(json.dumps(sns(test_event("clinic")))) == [(Reason.TEST, "clinic")]
    assert left_out(
        records(
            record("clinic", "a", event="ObjectRemoved:Delete"),
            record("clinic", "a", event="s3:ObjectRemoved:DeleteMarkerCreated"),
            record("clinic", "a", event="LifecycleExpiration:Delete"),
            record("clinic", "a", event="ObjectTagging:Put"),
            record("clinic", "a", event="s3:ObjectAccessed:Get"),
            record("clinic", "a", event="ObjectRestore:Completed"),
        )
    ) == [
        (Reason.DELETED, "ObjectRemoved:Delete"),
        (Reason.DELETED, "ObjectRemoved:DeleteMarkerCreated"),
        (Reason.DELETED, "LifecycleExpiration:Delete"),
        (Reason.OTHER, "ObjectTagging:Put"),
        (Reason.OTHER, "ObjectAccessed:Get"),
        (Reason.OTHER, "ObjectRestore:Completed"),
    ]
    assert left_out(eventbridge("clinic", "a", kind="Object Deleted")) == [(Reason.DELETED, "Object Deleted")]
    assert left_out(eventbridge("clinic", "a", kind="Object Tags Added")) == [(Reason.OTHER, "Object Tags Added")]


@pytest.mark.parametrize("shape", [lambda *a, **b: records(record(*a, **b)), eventbridge, minio])
def test_folders_and_empty_objects_are_left_out(shape: Any) -> None:
    assert left_out(shape("clinic", "2026/", size=0)) == [(Reason.FOLDER, "s3://clinic/2026/")]
    assert left_out(shape("clinic", "a_$folder$", size=0)) == [(Reason.EMPTY, "s3://clinic/a_$folder$")]
    assert parse(shape("clinic", "a", size=None)).created[0].size is None
    assert parse(shape("clinic", "odd/", size=3)).created[0].key == "odd/"


def test_events_of_other_services_are_left_out() -> None:
    foreign: list[dict[str, Any]] = [
        {"eventSource": "aws:sqs", "body": "{}"},
        {"EventSource": "aws:sns", "Sns": {"Message": "{}"}},
        {"eventSource": "aws:dynamodb", "eventName": "INSERT"},
    ]
    assert left_out(records(*foreign)) == [
        (Reason.FOREIGN, "aws:sqs"),
        (Reason.FOREIGN, "aws:sns"),
        (Reason.FOREIGN, "aws:dynamodb"),
    ]
    assert left_out(json.dumps({"detail-type": "Scheduled Event", "source": "aws.events", "detail": {}})) == [
        (Reason.FOREIGN, "aws.events")
    ]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "not JSON"),
        ("hello", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("{}", "not a notification of an object store: it is an object with 0 fields"),
        ("1", "not a notification"),
        ('"text"', "not JSON (4 characters)"),
        ('{"Records": {}}', "not a notification"),
        ('{"Records": [1]}', "not a notification"),
        ('{"Records": [{}]}', "the field eventName of the event is None"),
        ('{"Records": [{"eventName": "ObjectCreated:Put"}]}', "names no bucket and object"),
        (records(record("", "a")), "the field name of the event is ''"),
        (records(record("clinic", "a", size="1")), "the field size"),
        (records(record("clinic", "a", size=-1)), "the field size"),
        (records(record("clinic", "a", size=True)), "the field size"),
        (records(record("clinic", "a", versionId=7)), "the field versionId"),
        (json.dumps(sns("hello")), "not JSON (5 characters)"),
        (json.dumps(sns("") | {"Type": "SubscriptionConfirmation"}), "opening its SubscribeURL"),
        (filer("/buckets/clinic/a", {"extended": 1}), "wrong fields"),
        (filer("/buckets/clinic/a", "text"), "wrong fields"),
    ],
    ids=range(20),
)
def test_another_body_is_refused_in_one_line(body: str | bytes, says: str) -> None:
    with pytest.raises(S3EventUnreadable) as refused:
        parse(body)

    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_a_key_that_is_not_utf_8_is_refused() -> None:
    body = records(record("clinic", "a")).replace('"key": "a"', '"key": "%FF"')

    with pytest.raises(S3EventUnreadable, match="not UTF-8"):
        parse(body)


# --- the filer of SeaweedFS ----------------------------------------------------------------------------------------


def test_an_entry_of_the_filer_is_an_object() -> None:
    told = parse(filer(f"/buckets/clinic/{KEY}", filer_entry(KEY.rpartition("/")[2])))

    assert told.created == (CreatedObject("clinic", KEY, None, "5d41402abc4b2a76b9719d911017c592", 5, None),)
    multipart = parse(filer("/buckets/clinic/a.wav", filer_entry("a.wav", etag="62e309c1849b98b659acbaaf71c3fac4-2")))
    assert multipart.created[0].etag == "62e309c1849b98b659acbaaf71c3fac4-2"


def test_a_file_that_was_stored_in_the_filer_has_its_md5_sum_as_entity_tag() -> None:
    entry = filer_entry("a.wav")
    del entry["extended"]
    assert parse(filer("/buckets/clinic/a.wav", entry)).created[0].etag is None
    entry["attributes"]["md5"] = "XUFAKrxLKna5cZ2REBfFkg=="
    assert parse(filer("/buckets/clinic/a.wav", entry)).created[0].etag == "5d41402abc4b2a76b9719d911017c592"


def test_a_version_in_the_filer_is_an_object() -> None:
    entry = filer_entry("v_67136115", Seaweed_X_Amz_Version_Id="67136115")
    (found,) = parse(filer("/buckets/clinic/x/a.wav.versions/v_67136115", entry)).created

    assert (found.key, found.version_id) == ("x/a.wav", "67136115")
    marker = filer_entry("v_1", size=0, Seaweed_X_Amz_Version_Id="1", Seaweed_X_Amz_Delete_Marker="true")
    path = "/buckets/clinic/a.wav.versions/v_1"
    assert left_out(filer(path, marker)) == [(Reason.DELETED, path)]


def test_only_another_content_is_an_event() -> None:
    old, new = filer_entry("a.wav"), filer_entry("a.wav")
    new["extended"]["Seaweed-X-Amz-Tagging-a"] = "Yg=="
    path = "/buckets/clinic/a.wav"
    assert left_out(filer(path, new, old, kind="update")) == [(Reason.UNCHANGED, "s3://clinic/a.wav")]
    new["chunks"][0]["fid"]["file_key"] = 2  # the same bytes, stored again
    assert parse(filer(path, new, old, kind="update")).created[0].uri == "s3://clinic/a.wav"


def test_a_renamed_entry_has_its_new_key() -> None:
    old, new = filer_entry("a.wav"), filer_entry("b.wav")
    told = parse(filer("/buckets/clinic/a.wav", new, old, parent="/buckets/clinic/2026", kind="rename"))

    assert [found.uri for found in told.created] == ["s3://clinic/2026/b.wav"]


def test_other_entries_of_the_filer_are_left_out() -> None:
    folder = {"name": "2026", "is_directory": True, "attributes": {"mtime": 1795985067}}
    entry = filer_entry("x")
    for path, new, old, reason in (
        ("/buckets/clinic", folder, None, Reason.INTERNAL),
        ("/buckets/clinic/2026", folder, None, Reason.FOLDER),
        ("/buckets/clinic/.uploads/0123/0001_x.part", entry, None, Reason.INTERNAL),
        ("/buckets/.system/owners/x", entry, None, Reason.INTERNAL),
        ("/elsewhere/x", entry, None, Reason.INTERNAL),
        ("/buckets/clinic/x", None, entry, Reason.DELETED),
        ("/buckets/clinic/x", filer_entry("x", size=0), None, Reason.EMPTY),
    ):
        assert [found for found, _ in left_out(filer(path, new, old))] == [reason], path


# --- filters and order ---------------------------------------------------------------------------------------------


def test_a_filter_leaves_foreign_objects_out() -> None:
    told = parse(records(record("clinic", "in/a.wav"), record("other", "in/a.wav"), record("clinic", "in/a.txt")))
    chosen = ObjectFilter(("clinic", "third"), ("in/",), (".wav", ".mp3")).apply(told)

    assert [found.uri for found in chosen.created] == ["s3://clinic/in/a.wav"]
    assert [(entry.reason, entry.what) for entry in chosen.left_out] == [
        (Reason.FILTERED, "s3://other/in/a.wav"),
        (Reason.FILTERED, "s3://clinic/in/a.txt"),
    ]
    assert ObjectFilter().apply(told) == told


def test_events_of_one_key_are_put_in_order_and_keys_keep_their_places() -> None:
    events = [("a", "F"), ("b", "2"), ("a", "10"), ("c", None), ("b", "1"), ("a", "00e"), ("c", "1")]
    found = [CreatedObject("clinic", key, sequencer=sequencer) for key, sequencer in events]

    ordered = in_order(found, lambda entry: entry)

    assert [(entry.key, entry.sequencer) for entry in ordered] == [
        ("a", "00e"), ("b", "1"), ("a", "F"), ("c", None), ("b", "2"), ("a", "10"), ("c", "1"),
    ]  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2**80), st.integers(0, 30)), max_size=12))
def test_the_order_is_that_of_the_numbers(events: list[tuple[str, int, int]]) -> None:
    found = [CreatedObject("clinic", key, sequencer=f"{number:0{width}X}") for key, number, width in events]

    ordered = in_order(found, lambda entry: entry)

    assert [entry.key for entry in ordered] == [entry.key for entry in found]
    for key in "ab":
        numbers = [int(str(entry.sequencer), 16) for entry in ordered if entry.key == key]
        assert numbers == sorted(number for named, number, _ in events if named == key)


@given(keys)
def test_any_key_comes_out_of_every_shape(key: str) -> None:
    bodies = [records(record("clinic", key)), minio("clinic", key), eventbridge("clinic", key)]
    bodies += [json.dumps(sns(body)) for body in bodies] + [json.dumps(body) for body in bodies]
    assert {found.key for body in bodies for found in parse(body).created} == {key}
    if "/" not in key and not key.startswith("."):
        assert parse(filer(f"/buckets/clinic/{key}", filer_entry(key))).created[0].key == key


NAMES = [
    *("Records", "s3", "bucket", "object", "name", "key", "eventName", "eventSource", "size"),
    *("detail", "detail-type", "Message", "TopicArn", "Type"),
    *("event_type", "message", "new_entry", "attributes", "extended"),
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_nothing_but_the_error_comes_out_of_other_json(document: Any) -> None:
    with contextlib.suppress(S3EventUnreadable):
        parse(json.dumps(document))


@given(st.binary(max_size=200))
def test_nothing_but_the_error_comes_out_of_bytes(body: bytes) -> None:
    with contextlib.suppress(S3EventUnreadable):
        parse(body)
