"""A real worker tells the outcome of each job that ends, and the commands show it without a database."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.support.deployment import Deployment
from tests.support.outcomes import a_job, failed, succeeded
from tests.support.sounds import wav
from tests.support.waiting import PATIENCE, wait_until
from tussis.producer import Producer
from tussis.producer.cli import root
from tussis.shared.broker import connect
from tussis.shared.coverage import Coverage
from tussis.shared.ledger import Ledger
from tussis.shared.messages import envelope_around
from tussis.shared.outcomes import JobOutcome
from tussis.shared.queues import LEDGER_KEY, OPEN_KEY, OUTCOMES_KEY, outcome_key

WAIT_S = 60.0 * PATIENCE


def invoke(deployment: Deployment, *words: str, database: bool = False) -> Result:
    """Run ``tussis`` in this process, without access to the database."""
    environment: dict[str, str | None] = dict(deployment.environment)
    if not database:
        environment["TUSSIS_DATABASE_URL"] = None
    return CliRunner().invoke(root, words, env=environment)


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_each_end_of_a_job_is_told_as_the_store_has_it(deployment: Deployment) -> None:
    """A result, an answer that was stored before, failures with and without a claim, an unreadable message."""
    client: Any = connect(deployment.environment["TUSSIS_BROKER_URL"])
    jobs = [
        deployment.enqueue("good.wav", wav(20.0, seed=1)),
        deployment.enqueue("long.wav", wav(40.0, seed=2), coverage=Coverage.FULL),
        deployment.enqueue("broken.wav", b"not audio"),
        deployment.enqueue("missing.wav", None, etag="0" * 32),
    ]
    unreadable = str(uuid.uuid4())
    message = {"v": 9, "job_id": unreadable, "bucket": "clinic", "key": "a.wav", "enqueued_at": 1.0}
    client.hset(LEDGER_KEY, unreadable, json.dumps(message))
    client.zadd(OPEN_KEY, {unreadable: 1.0})
    client.lpush("tussis.any:5", envelope_around(message))
    deployment.worker(concurrency=1)
    with Producer(deployment.environment["TUSSIS_BROKER_URL"]) as producer:
        ids = [*(job.job_id for job in jobs), unreadable]
        told = producer.wait(ids, WAIT_S)
        # Once more: its answer is stored.
        again = replace(jobs[0], enqueued_at=jobs[0].enqueued_at + 1)
        deployment.ledger.open(again)
        settled = producer.wait([again.job_id], WAIT_S)[again.job_id]
        deployment.wait_drained(60)
        everything = list(producer.outcomes("all", idle_s=0.5))

    for job in jobs:
        stored = deployment.store.outcome_of(job.job_id, job.enqueued_at, deployment.analysis(job).id)
        assert stored is not None
        assert without_times(told[job.job_id]) == without_times(stored)
        assert stored.started_at is not None
        assert abs((told[job.job_id].finished_at or 0) - (stored.finished_at or 0)) < WAIT_S
    assert settled == deployment.store.outcome_of(again.job_id, again.enqueued_at, deployment.analysis(again).id)
    good, long = told[jobs[0].job_id].answer, told[jobs[1].job_id].answer
    assert good is not None
    assert (good.segments_scored, len(good.segments), good.truncated) == (32, 32, True)
    assert long is not None
    assert (long.coverage, long.segments_scored, len(long.segments)) == ("full", 80, 64)
    assert [segment.start_s for segment in long.segments] == [0.5 * index for index in range(64)]
    assert [told[job.job_id].error_class for job in jobs[2:]] == ["not_audio", "object_missing"]
    assert told[unreadable].error_class == "unknown_message_version"
    assert told[unreadable].uri == "s3://clinic/a.wav"
    assert sorted(outcome.job_id for outcome in everything) == sorted([*ids, again.job_id])

    since = "1h"
    replayed = invoke(deployment, "outcomes", "replay", "--since", since, database=True)
    assert replayed.exit_code == 0, replayed.output
    assert replayed.stdout == "5 outcomes sent again\n"
    with Producer(deployment.environment["TUSSIS_BROKER_URL"]) as producer:
        sent = {outcome.job_id: outcome for outcome in producer.outcomes("all", idle_s=0.5)}
    assert sent.keys() == set(ids)
    assert all(outcome.replayed for outcome in sent.values())
    # The database stores microseconds.
    assert abs((sent[again.job_id].enqueued_at or 0) - again.enqueued_at) < 1e-5
    assert replace(sent[again.job_id], enqueued_at=again.enqueued_at) == replace(settled, replayed=True)


def without_times(outcome: JobOutcome) -> JobOutcome:
    return replace(outcome, started_at=None, finished_at=None)


def test_a_replay_fills_a_gap(deployment: Deployment) -> None:
    """Outcomes of ended jobs and dead letters, the oldest first, in parts, without jobs that are open again."""
    client: Any = connect(deployment.environment["TUSSIS_BROKER_URL"])
    jobs = [deployment.enqueue(f"{number}.wav", wav(0.3, seed=number)) for number in range(4)]
    worker = deployment.worker(concurrency=1)
    deployment.wait_drained(60)
    worker.end()
    deployment.store.dead_letter("{}", "an-id", "malformed_message", "not JSON", ended_job=True)
    deployment.store.dead_letter("[]", "another", "malformed_message", "not JSON", ended_job=False)
    client.delete(OUTCOMES_KEY, *(outcome_key(job.job_id) for job in jobs))
    assert invoke(deployment, "job", jobs[0].job_id).exit_code == 1

    first = invoke(deployment, "outcomes", "replay", "--since", "1h", "--limit", "2", database=True)
    assert (first.exit_code, first.stdout) == (1, "2 outcomes sent again\n")
    following = first.stderr.split("--since ")[1].strip()
    deployment.ledger.open(replace(jobs[3], enqueued_at=jobs[3].enqueued_at + 1))
    dry = invoke(deployment, "outcomes", "replay", "--since", following, "--dry-run", database=True)
    assert (dry.exit_code, dry.stdout) == (0, "2 outcomes would be sent again\n")
    second = invoke(deployment, "outcomes", "replay", "--since", following, database=True)
    assert (second.exit_code, second.stdout) == (0, "2 outcomes sent again\n")

    shown = lines(invoke(deployment, "outcomes", "--group", "all", "--idle", "0.5"))
    assert [outcome["job_id"] for outcome in shown] == [*(job.job_id for job in jobs[:3]), "an-id"]
    assert shown[-1]["error"] == {"class": "malformed_message", "message": "not JSON"}
    assert invoke(deployment, "job", jobs[0].job_id).exit_code == 0
    future = invoke(deployment, "outcomes", "replay", "--since", "2100-01-01", database=True)
    assert future.exit_code == 2


def test_enqueue_and_job_wait_without_a_database(deployment: Deployment) -> None:
    good = deployment.bucket.put("good.wav", wav(1.0, seed=1))
    broken = deployment.bucket.put("broken.wav", b"not audio")
    deployment.worker(concurrency=1)

    one = invoke(deployment, "enqueue", good, "--wait", "--timeout", str(WAIT_S))
    assert one.exit_code == 0, one.output
    job_id, uri, decision, bag = one.stdout.rstrip("\n").split("\t")
    assert (uri, decision in ("cough", "no cough")) == (good, True)
    assert 0 <= float(bag.lstrip("<>")) <= 1
    both = invoke(deployment, "enqueue", good, broken, "--wait", "--json", "--timeout", str(WAIT_S))
    assert both.exit_code == 1
    assert {line["uri"]: line["state"] for line in lines(both)} == {good: "succeeded", broken: "failed"}
    assert "1 failed" in both.stderr

    shown = invoke(deployment, "job", job_id, "--json", "--wait")
    full = invoke(deployment, "job", job_id, "--json", database=True)
    (report,), (known,) = lines(shown), lines(full)
    assert shown.exit_code == full.exit_code == 0
    assert "TUSSIS_DATABASE_URL" in report.pop("source")
    for name in ("state", "uri", "model", "decision", "bag_probability", "duration_s", "cough_seconds", "events"):
        assert report[name] == known[name], name
    assert [segment["probability"] for segment in report["segments"]] == [
        segment["probability"] for segment in known["segments"]
    ]
    assert "segment  0" in invoke(deployment, "job", job_id).stdout


def test_waiting_commands_without_a_worker(deployment: Deployment) -> None:
    uri = deployment.bucket.put("a.wav", wav(1.0, seed=1))
    late = invoke(deployment, "enqueue", uri, "--wait", "--timeout", "0.2")
    assert late.exit_code == 3
    job_id, _, state, _ = late.stdout.rstrip("\n").split("\t")
    assert (state, "1 open" in late.stderr) == ("open", True)

    ledger = Ledger(connect(deployment.environment["TUSSIS_BROKER_URL"]))
    done, gone, unknown = a_job(), a_job(), str(uuid.uuid4())
    ledger.open_many([done, gone])
    ledger.close(done, succeeded(done))
    ledger.close(gone, failed(gone))
    several = invoke(deployment, "job", job_id, done.job_id, unknown, gone.job_id, "--json")
    assert several.exit_code == 1
    assert [(line["job_id"], line["state"]) for line in lines(several)] == [
        (job_id, "open"),
        (done.job_id, "succeeded"),
        (unknown, "unknown"),
        (gone.job_id, "failed"),
    ]
    waited = invoke(deployment, "job", job_id, done.job_id, "--json", "--wait", "--timeout", "0.2")
    assert waited.exit_code == 3
    assert [line["state"] for line in lines(waited)] == ["succeeded", "open"]
    assert "1 jobs are still open after 0.2 s" in waited.stderr
    assert invoke(deployment, "job", done.job_id, "--wait").exit_code == 0
    assert invoke(deployment, "job", gone.job_id, "--wait").exit_code == 1
    alone = invoke(deployment, "job", unknown, "--wait")
    assert alone.exit_code == 1
    assert "the broker keeps no outcome of it" in alone.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["job", "--wait"],
        ["job", "x", "--timeout", "1"],
        ["enqueue", "s3://b/k", "--timeout", "1"],
        ["enqueue", "s3://b/k", "--wait", "--dry-run"],
        ["outcomes", "--consumer", "one"],
        ["outcomes", "--idle", "1", "replay", "--since", "1h"],
        ["outcomes", "replay"],
    ],
)
def test_wrong_usage(words: list[str]) -> None:
    assert CliRunner().invoke(root, words).exit_code == 2


def test_following_prints_what_ends_from_now_on(deployment: Deployment) -> None:
    ledger = Ledger(connect(deployment.environment["TUSSIS_BROKER_URL"]))
    before = a_job()
    ledger.open(before)
    ledger.close(before, succeeded(before))
    following = deployment.tussis("outcomes", "--idle", "60")
    ended: list[str] = []

    def printed() -> bool:
        job = a_job()
        ledger.open(job)
        ledger.close(job, succeeded(job))
        ended.append(job.job_id)
        return bool(following.stdout)

    wait_until(printed, 60, "a line", every_s=0.2)
    assert json.loads(following.stdout[0])["job_id"] in ended
