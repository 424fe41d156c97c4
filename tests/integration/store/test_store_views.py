"""The views for analysts."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, label, model_facts, rows
from tussis.shared.states import AttemptOutcome
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store


def current(url: str) -> dict[str, dict[str, Any]]:
    """Return the row of the view current for each key."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return {row["key"]: row for row in connection.execute("SELECT * FROM current")}


def test_a_result_is_flat_and_complete(store: Store, store_url: str, model: ModelFacts) -> None:
    job = a_job(key="ward 3/ä.wav", metadata={"patient": 7})
    claim = claimed(store.claim(a_claim(job, model, version_id="v1")))
    store.complete(claim, a_result(32, truncated=True, segments_total=60, duration_s=30.0, analyzed_s=17.5))

    row = current(store_url)["ward 3/ä.wav"]

    for time in ("enqueued_at", "started_at", "finished_at", "created_at"):
        assert row.pop(time) is not None
    assert row == {
        "uri": "s3://recordings/ward 3/ä.wav",
        "bucket": "recordings",
        "key": "ward 3/ä.wav",
        "etag": "e1",
        "version_id": "v1",
        "state": "succeeded",
        "decision": True,
        "bag_probability": 0.8,
        "bag_logit": 1.386,
        "threshold": 0.61,
        "model": "cough@1",
        "profile": "documented",
        "coverage": "head",
        "segments": 32,
        "segments_total": 60,
        "duration_s": 30.0,
        "analyzed_s": 17.5,
        "truncated": True,
        "rate_hz": 16_000,
        "channels": 1,
        "codec": "pcm_s16le",
        "container": "wav",
        "decoder": "soundfile",
        "size_bytes": 64_044,
        "error_class": None,
        "error_message": None,
        "attempts": 1,
        "metadata": {"patient": 7},
        "job_id": row["job_id"],
        "analysis_id": claim.analysis_id,
        "recording_id": row["recording_id"],
        "events": 1,
        "cough_seconds": 1.0,
        "peak_dbfs": -3.0,
        "rms_dbfs": -20.0,
        "clipped_share": 0.0,
        "dc_offset": 0.001,
        "warnings": [],
        "recorded_at": None,
        "site": None,
        "subject": None,
    }
    assert str(row["job_id"]) == job.job_id


def test_current_is_the_newest_final_answer(store: Store, store_url: str, model: ModelFacts) -> None:
    newer = model_facts(version="2", sha256="b" * 64)
    for number, answering in enumerate((model, newer), start=1):
        store.complete(claimed(store.claim(a_claim(a_job(), answering))), a_result(2, 0.2 + number / 100))
    # Not final: running, and waiting for the next attempt.
    store.claim(a_claim(a_job(again=True, model=label(model)), model))
    store.release(
        claimed(store.claim(a_claim(a_job(again=True, model=label(model)), model))), AttemptOutcome.HANDED_BACK
    )

    row = current(store_url)["a.wav"]
    assert (row["model"], row["state"]) == ("cough@2", "succeeded")

    # The object was replaced by one that cannot be analysed: this failure is now the answer.
    store.fail(claimed(store.claim(a_claim(a_job(), newer, etag="e2"))), "not_audio", "a picture")
    row = current(store_url)["a.wav"]
    assert (row["etag"], row["state"], row["error_class"], row["decision"]) == ("e2", "failed", "not_audio", None)

    # Then it was deleted.
    store.refuse(a_refusal(a_job()))
    assert current(store_url)["a.wav"]["error_class"] == "object_missing"


def test_a_failure_that_tells_of_a_job_hides_no_answer(store: Store, store_url: str, model: ModelFacts) -> None:
    # A message for replaced bytes: its failure is shown because there is no other answer.
    store.fail(claimed(store.claim(a_claim(a_job(), model, etag="e0"))), "object_changed", "replaced")
    assert current(store_url)["a.wav"]["error_class"] == "object_changed"

    result = claimed(store.claim(a_claim(a_job(), model, etag="e1")))
    store.complete(result, a_result())
    store.fail(claimed(store.claim(a_claim(a_job(), model, etag="e2"))), "object_changed", "replaced")
    store.refuse(a_refusal(a_job(), error_class="model_not_served", model_requested="other"))
    row = current(store_url)["a.wav"]
    assert (row["analysis_id"], row["state"]) == (result.analysis_id, "succeeded")

    store.refuse(a_refusal(a_job()))
    assert current(store_url)["a.wav"]["error_class"] == "object_missing"


def test_an_analysis_under_another_profile_by_order_is_left_out(
    store: Store, store_url: str, model: ModelFacts
) -> None:
    store.complete(claimed(store.claim(a_claim(a_job(), model))), a_result())
    other = a_claim(a_job(profile="legacy"), model, profile="legacy", profile_overridden=True)
    store.complete(claimed(store.claim(other)), a_result(2, 0.1))
    store.refuse(a_refusal(a_job(key="b.wav"), profile="legacy", profile_overridden=True))

    assert {key: row["profile"] for key, row in current(store_url).items()} == {"a.wav": "documented"}
    assert rows(store_url, "SELECT profile FROM analyses_newest ORDER BY 1") == [
        ("documented",),
        ("legacy",),
        ("legacy",),
    ]


def test_newest_of_each_question(store: Store, store_url: str, model: ModelFacts) -> None:
    newer = model_facts(version="2", sha256="b" * 64)
    for request in (
        a_claim(a_job(), model),
        a_claim(a_job(again=True), model),
        a_claim(a_job(), newer),
        a_claim(a_job(model=label(model)), model, etag="e2"),
    ):
        last = claimed(store.claim(request))
        store.complete(last, a_result())
    for name in ("other@1", "other@2"):
        store.refuse(a_refusal(a_job(), model_requested=name))
    found = rows(store_url, "SELECT id FROM analyses_newest ORDER BY 1")
    # A later job with `again` replaces the first.
    assert [analysis_id for (analysis_id,) in found] == [2, 3, 4, 5, 6]


def test_segments_of_current_results(store: Store, store_url: str, model: ModelFacts) -> None:
    store.complete(claimed(store.claim(a_claim(a_job(), model))), a_result(8))
    newest = claimed(store.claim(a_claim(a_job(again=True), model)))
    store.complete(newest, a_result(2))
    store.fail(claimed(store.claim(a_claim(a_job(key="b.wav"), model))), "empty", "no bytes")

    found = rows(
        store_url,
        "SELECT uri, segment_index, start_s, end_s, round(probability::numeric, 2)::float8, model, analysis_id "
        "FROM current_segments ORDER BY segment_index",
    )
    uri = "s3://recordings/a.wav"
    assert found == [
        (uri, 0, 0.0, 2.0, 0.33, "cough@1", newest.analysis_id),
        (uri, 1, 0.5, 2.5, 0.67, "cough@1", newest.analysis_id),
    ]


def test_one_recording_of_current_does_not_read_them_all(store: Store, store_url: str, model: ModelFacts) -> None:
    store.complete(claimed(store.claim(a_claim(a_job(), model))), a_result())
    with psycopg.connect(store_url) as connection:
        connection.execute("SET enable_seqscan = off")
        plan = connection.execute("EXPLAIN SELECT * FROM current WHERE bucket = 'recordings' AND key = 'a.wav'")
        text = "\n".join(line for (line,) in plan)
    assert "Index Cond: ((bucket = 'recordings'::text) AND (key = 'a.wav'::text))" in text
