"""Transient errors of the database, and rows that it always refuses."""

from __future__ import annotations

import json

import pytest

from tests.support.deployment import Deployment
from tests.support.sounds import wav
from tests.support.store import execute, rows
from tussis.shared.store.records import ResultFilter
from tussis.shared.store.repository import Store


@pytest.mark.scenario(24)
def test_good_recordings_behind_a_pooler_in_transaction_mode_all_succeed(
    deployment: Deployment, pooled_url: str
) -> None:
    """Given more children than sessions of the server, when good recordings are analysed, then none fails, and each one
    has one attempt."""
    deployment.environment |= {"TUSSIS_DATABASE_URL": pooled_url, "TUSSIS_DATABASE_DIRECT": "false"}
    for command in (["migrate"], ["migrate", "--check"]):
        assert deployment.tussis(*command).wait(60) == 0
    jobs = [deployment.enqueue(f"{number}.wav", wav(0.3, seed=number)) for number in range(60)]
    worker = deployment.worker(concurrency=4)
    deployment.wait_drained(180)
    shown = {
        words: json.loads("".join(run.stdout))
        for words in ("status", f"job {jobs[0].job_id}")
        if (run := deployment.tussis(*words.split(), "--json")).wait(60) == 0
    }
    assert shown["status"]["open"] == 0
    assert len(shown) == 2
    for words in (["results"], ["failures", "list"]):
        assert deployment.tussis(*words).wait(60) == 0
    worker.end()
    deployment.assert_accounted()
    assert deployment.store.counts().succeeded == len(jobs)
    assert {analysis.attempts for analysis in deployment.analyses()} == {1}


@pytest.mark.scenario(25)
def test_a_recording_that_the_database_refuses_for_ever_ends_as_a_dead_letter(
    deployment: Deployment, store_url: str
) -> None:
    """Given a trigger that refuses all rows of one recording, when it is analysed, then it ends as a dead letter, and
    the other jobs get results."""
    execute(
        store_url,
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'not this one'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON recordings FOR EACH ROW WHEN (NEW.key = 'bad.wav')
            EXECUTE FUNCTION refuse();
        """,
    )
    bad = deployment.enqueue("bad.wav", wav(0.3))
    for number in range(4):
        deployment.enqueue(f"{number}.wav", wav(0.3, seed=number))
    worker = deployment.worker(concurrency=1, retry_base_s=0.2, retry_cap_s=0.2, retry_total_s=0.5)
    deployment.wait_drained(60)
    worker.end()
    with Store.connect(store_url) as store:
        assert len(list(store.results(ResultFilter()))) == 4
        assert store.counts().succeeded == 4
    [(raw, job_id, error_class, message)] = rows(
        store_url, "SELECT raw, job_id, error_class, error_message FROM dead_letters"
    )
    assert json.loads(raw)["key"] == "bad.wav"
    assert (job_id, error_class) == (bad.job_id, "expired")
    assert "not this one" in message
    outcomes = [event["outcome"] for event in worker.events if event["event"] == "job_done"]
    assert sorted(outcomes) == ["deferred"] * 2 + ["failed"] + ["succeeded"] * 4
