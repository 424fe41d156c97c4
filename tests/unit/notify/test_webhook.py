"""Webhooks: their body, their id, their place."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.support.outcomes import a_job, failed, succeeded
from tussis.shared.outcomes import JobOutcome, OutcomeState
from tussis.worker.notify.webhook import Webhook, parse_webhook, webhook_of, webhook_of_document


def test_a_body_has_type_time_and_the_document_as_it_is() -> None:
    outcome = succeeded(a_job(key='ä"/🎤.wav'))
    text = outcome.to_json()[:-1] + ',"later":[1,{"é":null}]}'

    webhook = webhook_of_document(text, 9.0)

    assert text in webhook.body
    assert json.loads(webhook.body) == {
        "type": "job.succeeded",
        "timestamp": "1970-01-01T00:00:02.500Z",
        "data": outcome.to_dict() | {"answer": json.loads(text)["answer"], "later": [1, {"é": None}]},
    }
    assert webhook.recording == outcome.uri
    assert json.loads(webhook_of(failed(a_job())).body)["type"] == "job.failed"


def test_an_outcome_that_is_replayed_has_the_same_id_and_another_message_has_not() -> None:
    job = a_job(enqueued_at=1_790_000_000.1234567)
    outcome = succeeded(job)
    same = [
        outcome.again(),
        replace(outcome, enqueued_at=1_790_000_000.123457),  # as the database stores it
        replace(outcome, started_at=None, finished_at=3.0),
    ]
    others = [
        replace(outcome, enqueued_at=1_790_000_000.2),
        replace(outcome, analysis_id=8),
        replace(outcome, state=OutcomeState.FAILED),
        replace(outcome, job_id=a_job().job_id),
    ]

    ids = [webhook_of(one).webhook_id for one in (outcome, *same, *others)]

    assert len(set(ids[:4])) == 1
    assert len(set(ids[3:])) == 5


def test_what_no_version_can_read_is_delivered_as_text() -> None:
    webhook = webhook_of_document("no JSON", 5.0)
    assert json.loads(webhook.body) == {
        "type": "job.ended", "timestamp": "1970-01-01T00:00:05.000Z", "data": "no JSON"
    }  # fmt: skip
    assert webhook_of_document("other", 5.0).webhook_id != webhook.webhook_id
    nameless = JobOutcome(job_id="an-id", uri=None, state=OutcomeState.FAILED)
    assert webhook_of(nameless).recording == "an-id"


@given(st.text(), st.one_of(st.none(), st.floats(allow_nan=False)))
def test_any_text_makes_a_valid_body(text: str, at: float | None) -> None:
    webhook = webhook_of_document(text, at)
    assert json.loads(webhook.body).keys() == {"type", "timestamp", "data"}
    assert parse_webhook(webhook.to_json()) == webhook


@given(
    st.builds(
        Webhook,
        webhook_id=st.text(),
        recording=st.text(),
        body=st.text(),
        number=st.integers(0),
        attempts=st.integers(0),
        first_at=st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
        due_at=st.floats(0, 1e12),
        reason=st.text(),
    )
)
def test_what_is_stored_is_read_back(webhook: Webhook) -> None:
    assert parse_webhook(webhook.to_json()) == webhook
