"""``docs/message.schema.json`` and the parser accept the same messages."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.support.enqueue_doc import SCHEMA, rows
from tussis.shared.errors import MalformedMessage, UnknownMessageVersion
from tussis.shared.messages import Job, parse_message

_schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
_validator = Draft202012Validator(_schema)

# Small, so that the rules that no schema can say (bytes of UTF-8) are never the reason.
_text = st.text(max_size=12)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=6,
)
_names = st.text(st.sampled_from("abzAZ09._-+@_ \n\"'é\x00"), max_size=8)
_good: dict[str, st.SearchStrategy[Any]] = {
    "v": st.just(1),
    "job_id": st.uuids().map(str),
    "bucket": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{1,20}[A-Za-z0-9]", fullmatch=True),
    "key": st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40),
    "enqueued_at": st.floats(0, 253402300799) | st.integers(0, 253402300799),
    "version_id": st.none() | st.from_regex(r"[!-~]{1,30}", fullmatch=True),
    "etag": st.none() | st.from_regex(r'[!#-~]{1,30}|(W/)?"[!#-~]{1,30}"', fullmatch=True),
    "model": st.none() | st.from_regex(r"[A-Za-z0-9._-]{1,20}(@[A-Za-z0-9._+-]{1,20})?", fullmatch=True),
    "profile": st.none() | st.from_regex(r"[a-z0-9_]{1,20}", fullmatch=True),
    "coverage": st.none() | st.sampled_from(["head", "full"]),
    "priority": st.integers(0, 9),
    "device": st.sampled_from(["any", "cpu", "gpu"]),
    "again": st.booleans(),
    "reopen": st.booleans(),
    "shadow": st.just(False),
    "metadata": st.dictionaries(_text, _json, max_size=4),
}
_required = ("v", "job_id", "bucket", "key", "enqueued_at")
_messages = st.fixed_dictionaries(
    {name: _good[name] for name in _required},
    optional={name: strategy for name, strategy in _good.items() if name not in _required},
)
# Without NaN: JSON has none, and no schema can refuse it.
_near_misses = (
    _names
    | _json
    | st.floats(allow_nan=False)
    | st.sampled_from([-1, 9, 10, 1.5, 5.0, "5", "any", "cpu\n", "ab\n", "e\n"])
)


def _parses(message: object) -> bool:
    try:
        parse_message(message)
    except (MalformedMessage, UnknownMessageVersion):
        return False
    return True


@given(_messages)
@settings(deadline=None)
def test_a_message_by_the_rules_is_accepted_by_both(message: dict[str, Any]) -> None:
    nul = "\\u0000" in json.dumps(message.get("metadata", {}), ensure_ascii=False).replace("\\\\", "")

    assert _validator.is_valid(message) is not nul
    assert _parses(message) is not nul


@given(_messages, st.sampled_from([*_good, "colour"]), _near_misses)
@settings(deadline=None, max_examples=1000)
def test_both_agree_on_a_message_with_one_field_changed(message: dict[str, Any], name: str, value: object) -> None:
    changed = message | {name: value}

    assert _validator.is_valid(changed) is _parses(changed)


@given(_messages, st.sampled_from(_required))
@settings(deadline=None)
def test_both_refuse_a_message_without_a_required_field(message: dict[str, Any], name: str) -> None:
    del message[name]

    assert not _validator.is_valid(message)
    assert not _parses(message)


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(_schema)


def test_code_schema_and_table_name_the_same_fields() -> None:
    fields = {"v", *Job.__dataclass_fields__}
    table = {row[0]: row[2] for row in rows("The message")}

    assert set(_schema["properties"]) == fields
    assert set(table) == fields
    assert {name for name, required in table.items() if required == "yes"} == set(_schema["required"])


def test_the_schemas_defaults_are_the_codes() -> None:
    minimal = {"v": 1, "job_id": "d906b625-5a4d-5c13-8152-a4cc08c545be", "bucket": "bbb", "key": "k", "enqueued_at": 1}
    read = vars(parse_message(minimal))

    for name, field in _schema["properties"].items():
        if name not in _required:
            assert read[name] == field.get("default"), name
