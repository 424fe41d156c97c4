"""The outcome of a job: the code, ``docs/outcome.schema.json`` and ``docs/outcomes.md`` agree."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.support.outcomes import a_job, an_answer, failed, succeeded
from tests.support.processes import ROOT
from tests.support.tables import code, table
from tussis.shared import outcomes
from tussis.shared.coverage import Coverage
from tussis.shared.errors import OutcomeUnreadable
from tussis.shared.outcomes import (
    EventSpan,
    JobOutcome,
    OutcomeAnswer,
    OutcomeState,
    SegmentScore,
    first_segments,
    parse_outcome,
)

SCHEMA = json.loads((ROOT / "docs" / "outcome.schema.json").read_text(encoding="utf-8"))
DOCUMENT = ROOT / "docs" / "outcomes.md"
VALIDATOR = Draft202012Validator(SCHEMA)

_probability = st.floats(0, 1)
_seconds = st.floats(0, 1e6)
_text = st.text(st.characters(codec="utf-8"), max_size=20)
_answers = st.builds(
    OutcomeAnswer,
    decision=st.booleans(),
    bag_probability=_probability,
    threshold=_probability,
    model=_text,
    profile=_text,
    coverage=st.sampled_from([coverage.value for coverage in Coverage]),
    duration_s=_seconds,
    analyzed_s=_seconds,
    truncated=st.booleans(),
    cough_seconds=_seconds,
    warnings=st.lists(_text, max_size=3).map(tuple),
    events_found=st.integers(0, 10**6),
    events=st.lists(st.builds(EventSpan, _seconds, _seconds, _probability), max_size=5).map(tuple),
    segments_scored=st.integers(0, 10**6),
    segments=st.lists(st.builds(SegmentScore, _seconds, _probability), max_size=64).map(tuple),
)
_outcomes = st.builds(
    JobOutcome,
    job_id=st.uuids().map(str),
    uri=st.none() | _text,
    state=st.sampled_from(OutcomeState),
    enqueued_at=st.none() | _seconds,
    started_at=st.none() | _seconds,
    finished_at=st.none() | _seconds,
    analysis_id=st.none() | st.integers(1, 2**63 - 1),
    answer=st.none() | _answers,
    error_class=st.none(),
    error_message=st.none(),
    replayed=st.booleans(),
)


@given(_outcomes)
@settings(deadline=None)
def test_an_outcome_is_read_as_it_was_written_and_follows_the_schema(outcome: JobOutcome) -> None:
    text = outcome.to_json()

    assert parse_outcome(text) == parse_outcome(text.encode()) == outcome
    VALIDATOR.validate(json.loads(text))


def test_a_failure_has_its_class_and_a_message_of_limited_length() -> None:
    long = replace(failed(a_job()), error_message="x" * 5000 + "\ud800")
    odd = replace(failed(a_job()), error_message="a\ud800b")

    read = parse_outcome(long.to_json())

    assert read.error_class == "corrupt"
    assert read.error_message == "x" * outcomes.MAX_MESSAGE_CHARS
    assert parse_outcome(odd.to_json().encode()).error_message == "a?b"
    VALIDATOR.validate(json.loads(long.to_json()))


def test_unknown_fields_are_ignored() -> None:
    outcome = succeeded(a_job())
    raw = json.loads(outcome.to_json()) | {"later": 1}
    raw["answer"] |= {"later": 2, "segments": [[0.0, 0.25, "later"], [0.5, 0.25, "later"]]}

    assert parse_outcome(json.dumps(raw)) == outcome
    VALIDATOR.validate(raw)


_CHANGES: Final[tuple[dict[str, Any], ...]] = (
    {"state": "lost"},
    {"answer": {}},
    {"answer": 5},
    {"error": "x"},
    {"v": "1"},
)
_NO_OUTCOMES: Final[list[str | bytes]] = [
    *(b"", "[]", "null", '{"v": 2}', '{"v": 1}', '{"v": true, "job_id": "x"}', "[" * 100_000),
    *(json.dumps(succeeded(a_job()).to_dict() | changes) for changes in _CHANGES),
]


@pytest.mark.parametrize("text", _NO_OUTCOMES, ids=range(len(_NO_OUTCOMES)))
def test_what_is_no_outcome_is_refused(text: str | bytes) -> None:
    with pytest.raises(OutcomeUnreadable) as error:
        parse_outcome(text)
    assert "\n" not in str(error.value)


def test_an_outcome_has_the_first_segments() -> None:
    starts, probabilities = [0.5 * index for index in range(500)], [0.25] * 500

    assert first_segments(starts, probabilities) == tuple(
        SegmentScore(start, 0.25) for start in starts[: outcomes.MAX_SEGMENTS]
    )
    assert first_segments(starts[:3], probabilities[:3]) == an_answer(3).segments


def test_a_replayed_outcome_says_so() -> None:
    outcome = succeeded(a_job())
    assert outcome.again() == replace(outcome, replayed=True)
    assert '"replayed":true' in outcome.again().to_json()


def fields_of(schema: dict[str, Any]) -> list[str]:
    assert sorted(schema["required"]) == sorted(schema["properties"])
    return list(schema["properties"])


def test_code_schema_and_document_have_the_same_fields_and_limits() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    written = succeeded(a_job()).to_dict()
    answer = SCHEMA["$defs"]["answer"]

    assert list(written) == fields_of(SCHEMA) == [code(row[0]) for row in table(DOCUMENT, "field")]
    assert (
        list(written["answer"]) == fields_of(answer) == [code(row[0]) for row in table(DOCUMENT, "field of `answer`")]
    )
    assert answer["properties"]["segments"]["maxItems"] == outcomes.MAX_SEGMENTS
    assert answer["properties"]["events"]["maxItems"] == outcomes.MAX_EVENTS
    assert SCHEMA["$defs"]["error"]["properties"]["message"]["maxLength"] == outcomes.MAX_MESSAGE_CHARS
    assert SCHEMA["properties"]["state"]["enum"] == [state.value for state in OutcomeState]
