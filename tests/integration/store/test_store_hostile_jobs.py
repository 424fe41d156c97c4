"""The store can store every message as a failure. A message that it could not store would be delivered forever."""

from __future__ import annotations

import json
import math
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.store import a_claim, a_refusal, claimed, model_facts
from tussis.shared.errors import MalformedMessage
from tussis.shared.messages import Job, parse_message
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store

TEXT = st.text(st.characters(codec=None), max_size=40)
LONG = st.builds(lambda text, times: text * times, st.text(min_size=1, max_size=4), st.integers(200, 1100))
NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(),
    st.sampled_from([1e308, 5e-324, -0.0, 10**400, 2**63, 253_402_300_799.999_97, math.nextafter(253_402_300_800, 0)]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT, LONG),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=20,
)
DEEP = st.builds(
    lambda depth, shape: json.loads(shape[0] * depth + shape[1] + shape[2] * depth),
    st.integers(1, 900),
    st.sampled_from([("[", "", "]"), ('{"a":', "1", "}")]),
)
MODEL = r"[A-Za-z0-9._-]{1,100}(@[A-Za-z0-9._+-]{1,100})?"
PRINTABLE = st.text(st.sampled_from([chr(code) for code in range(33, 127) if chr(code) != '"']), min_size=1)
MESSAGES = st.fixed_dictionaries(
    {
        "v": st.just(1),
        "job_id": st.builds(lambda: str(uuid.uuid4())),
        "bucket": st.sampled_from(["recordings", "b" * 63, "a.b-c"]),
        "key": st.one_of(TEXT, LONG, PRINTABLE, st.just("\U0010ffff" * 256)),
        "enqueued_at": st.one_of(st.floats(0, 253_402_300_800), NUMBERS),
    },
    optional={
        "etag": st.one_of(st.none(), PRINTABLE, st.just("x" * 1024)),
        "version_id": st.one_of(st.none(), PRINTABLE),
        "model": st.one_of(st.none(), st.from_regex(MODEL, fullmatch=True)),
        "profile": st.one_of(st.none(), st.from_regex(r"[a-z0-9_]{1,64}", fullmatch=True)),
        "again": st.booleans(),
        "reopen": st.booleans(),
        "metadata": st.one_of(st.dictionaries(TEXT, VALUES, max_size=4), st.fixed_dictionaries({"deep": DEEP})),
    },
)


@pytest.fixture
def hostile_model(store: Store) -> ModelFacts:
    facts = model_facts()
    store.register_model(facts)
    return facts


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(raw=MESSAGES, message=st.one_of(TEXT, LONG))
def test_every_job_that_a_message_can_hold_can_be_stored_as_a_failure(
    store: Store, hostile_model: ModelFacts, raw: dict[str, Any], message: str
) -> None:
    try:
        job: Job = parse_message(raw)
    except MalformedMessage as error:
        store.dead_letter(json.dumps(raw), str(raw["key"]), "malformed_message", str(error))
        return
    refused = a_refusal(
        job,
        etag=job.etag or "",
        version_id=job.version_id,
        profile=job.profile or "",
        model_requested=job.model,
        message=message,
    )
    assert isinstance(store.refuse(refused), int)
    again = parse_message(raw | {"job_id": str(uuid.uuid4()), "again": True})
    claim = claimed(store.claim(a_claim(again, hostile_model, etag=job.etag or "", version_id=job.version_id)))
    assert store.fail(claim, "expired", message, {"fetch": 1.0})
    answer = store.job(again.job_id)
    assert answer is not None
    assert answer.analysis.key == job.key
    assert answer.analysis.error_class == "expired"
    store.dead_letter(again.to_json(), again.job_id, "expired", message)
