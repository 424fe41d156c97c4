"""`tussis forget`: what it erases, what it refuses afterwards, and what it leaves."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.support import leftovers
from tests.support.servers import Bucket
from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, execute, rows
from tussis.producer.cli import root
from tussis.shared.errors import Forgotten
from tussis.shared.ledger import Ledger
from tussis.shared.messages import Job, envelope
from tussis.shared.outcome_group import OutcomeGroup
from tussis.shared.outcomes import JobOutcome, OutcomeState, parse_outcome
from tussis.shared.queues import OUTCOMES_KEY, UNACKED_INDEX_KEY, UNACKED_KEY, idempotency_key, list_key
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store
from tussis.worker.embedded.servers import Servers
from tussis.worker.notify.outbox import Outbox
from tussis.worker.notify.webhook import webhook_of

KEY = "private/ärztin-müller.wav"
SUBJECT = "P-0117-ünique"
NOTE = "whispers in the dark"
NEEDLES = (KEY, SUBJECT, NOTE)
METADATA = {"subject": SUBJECT, "note": NOTE}


@pytest.fixture
def run(
    servers: Servers, broker_url: str, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """``tussis forget`` with a journal."""
    for name, value in servers.endpoints.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TUSSIS_BROKER_URL", broker_url)
    monkeypatch.setenv("TUSSIS_DATABASE_URL", store_url)
    monkeypatch.setenv("TUSSIS_FORGET_JOURNAL", str(tmp_path / "journal"))

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(root, ["forget", *words], catch_exceptions=False)

    return invoke


def succeed(store: Store, job: Job, model: ModelFacts, **changes: Any) -> None:
    claim = claimed(store.claim(a_claim(job, model, **changes)))
    assert store.complete(claim, a_result())


def told(job: Job) -> JobOutcome:
    return JobOutcome(
        job_id=job.job_id, uri=job.uri, state=OutcomeState.FAILED, enqueued_at=job.enqueued_at, finished_at=time.time()
    )


def fill(store: Store, store_url: str, client: Any, ledger: Ledger, model: ModelFacts, **named: Any) -> list[Job]:
    """Put a recording into every place; returns its open jobs. ``named``: fields of its messages."""
    succeed(store, a_job(**named), model)
    store.refuse(a_refusal(a_job(**named, again=True)))
    store.claim(a_claim(a_job(**named), model, etag="e2"))
    store.dead_letter(json.dumps({"key": named["key"], "metadata": named["metadata"], "v": 9}), None, "x", "y")
    store.dead_letter(f'{{"bucket": "recordings", "key": "{named["key"]}", "metada', None, "x", "cut")
    execute(
        store_url,
        "INSERT INTO tombstones (bucket, key, etag, model_id, profile, coverage, profile_overridden, "
        "coverage_overridden) SELECT 'recordings', %s, 'old', id, 'p', 'head', false, false FROM models",
        named["key"],
    )
    now = time.time()
    waiting, deferred, flying, ended = (a_job(**named, enqueued_at=now + number) for number in range(4))
    ledger.open_many([waiting, deferred, flying, ended], batch="night")
    ledger.defer(deferred, 3600)
    filed = json.dumps([json.loads(envelope(flying)), "", "tussis.any"])
    client.lrem(list_key(flying.queue, flying.priority), 1, envelope(flying))
    client.hset(UNACKED_KEY, "tag", filed)
    client.zadd(UNACKED_INDEX_KEY, {"tag": now})
    ledger.close(ended, told(ended))
    client.lpush("tussis.cpu:3", envelope(ended))  # a message of a job that has ended
    client.hset(idempotency_key("abc"), mapping={"answer": json.dumps({"uri": ended.uri}), "content": "x"})
    outbox = Outbox(client, "b", "upstream", "token")
    outbox.lead()
    outbox.add([webhook_of(told(waiting)), webhook_of(told(ended)), webhook_of(told(flying))])
    outbox.give_up(webhook_of(told(ended)))
    outbox.give_up(webhook_of(told(flying)))
    outbox.redeliver(next(iter(outbox.undelivered())), webhook_of(told(ended)))
    return [waiting, deferred, flying]


@pytest.mark.parametrize("words", [[f"s3://recordings/{KEY}"], ["--prefix", "s3://recordings/private/"]])
def test_nothing_of_a_recording_is_left_anywhere(
    store: Store,
    store_url: str,
    client: Any,
    ledger: Ledger,
    model: ModelFacts,
    run: Any,
    words: list[str],
    tmp_path: Path,
) -> None:
    succeed(store, a_job(key="other.wav"), model)
    kept = a_job(key="other2.wav", enqueued_at=time.time())
    ledger.open(kept)
    open_jobs = fill(store, store_url, client, ledger, model, key=KEY, metadata=METADATA)
    execute(store_url, "ANALYZE")
    assert set(leftovers.in_database(store_url, NEEDLES)) >= {"recordings", "dead_letters", "tombstones"}
    places = leftovers.in_broker(client, NEEDLES)
    assert len(places) >= 9

    planned = json.loads(run(*words, "--json").stdout)
    assert planned["done"] is False
    assert set(leftovers.in_broker(client, NEEDLES)) == set(places)
    done = run(*words, "--yes", "--by", "me", "--report", str(tmp_path / "report.json"))
    assert done.exit_code == 0, done.output

    assert leftovers.in_database(store_url, NEEDLES) == []
    assert leftovers.in_broker(client, NEEDLES) == []
    assert not any(needle in done.output for needle in NEEDLES)
    assert leftovers.in_files(tmp_path, NEEDLES) == []
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["counts"] == planned["counts"]
    assert report["counts"]["recordings"] == 3  # e1, e2, and one without an entity tag
    assert rows(store_url, "SELECT key FROM recordings") == [("other.wav",)]
    assert [job_id.decode() for job_id in client.hkeys("tussis.ledger")] == [kept.job_id]
    ended = [parse_outcome(fields[b"outcome"]) for _, fields in client.xrange(OUTCOMES_KEY)]
    assert {one.job_id for one in ended} == {job.job_id for job in open_jobs}
    assert {(one.uri, one.state.value, one.error_class) for one in ended} == {(None, "failed", "forgotten")}
    trail = rows(store_url, "SELECT action, actor, cardinality(targets) FROM audit_trail ORDER BY id")
    assert trail == [("forget", "me", 1), ("forget_done", "me", 1)]
    assert json.loads(run(*words, "--json").stdout)["counts"] == {}


def test_a_person_is_forgotten_by_the_subject_also_where_a_message_has_none(
    store: Store, store_url: str, client: Any, ledger: Ledger, model: ModelFacts, run: Any
) -> None:
    fill(store, store_url, client, ledger, model, key=KEY, metadata=METADATA)
    queued = a_job(key="only/queued.wav", metadata=METADATA, enqueued_at=time.time())
    ledger.open(queued)
    bare = a_job(key="only/queued.wav", enqueued_at=time.time())
    ledger.open(bare)  # the same object, without metadata
    done = run("--subject", SUBJECT, "--yes")
    assert done.exit_code == 0, done.output

    everything = (*NEEDLES, "only/queued.wav")
    assert leftovers.in_database(store_url, everything) == []
    assert leftovers.in_broker(client, everything) == []
    for job in (a_job(key="new.wav", metadata=METADATA), a_job(key=KEY), bare):
        with pytest.raises(Forgotten):
            store.claim(a_claim(job, model))
    succeed(store, a_job(key="new.wav", metadata={"subject": "another"}), model)


def test_no_statement_stores_a_forgotten_recording(store: Store, store_url: str, model: ModelFacts, run: Any) -> None:
    running = a_job(key=KEY, metadata=METADATA)
    claim = claimed(store.claim(a_claim(running, model)))
    execute(
        store_url,
        "INSERT INTO forgotten (digest, kind) VALUES (tussis_forget_digest('object', 'recordings/' || %s), 'object')",
        KEY,
    )  # as by a run that was killed after this step
    with pytest.raises(Forgotten):
        store.complete(claim, a_result())
    with pytest.raises(Forgotten):
        store.claim(a_claim(running, model))
    with pytest.raises(Forgotten):
        store.refuse(a_refusal(a_job(key=KEY)))
    with pytest.raises(Forgotten):
        store.cancel([a_job(key=KEY, enqueued_at=time.time())], "me")
    store.dead_letter(json.dumps({"message": {"bucket": "recordings", "key": KEY}}), None, "x", "y")
    assert rows(store_url, "SELECT count(*) FROM dead_letters") == [(0,)]
    assert rows(store_url, "SELECT state FROM analyses") == [("running",)]

    assert run("--again", "--yes").exit_code == 0
    assert leftovers.in_database(store_url, NEEDLES) == []
    assert store.complete(claim, a_result()) is False


def test_a_restored_database_forgets_again_from_the_journal(
    store: Store, store_url: str, model: ModelFacts, run: Any, tmp_path: Path
) -> None:
    assert run(f"s3://recordings/{KEY}", "--yes").exit_code == 0
    assert run("--prefix", "s3://lifted/", "--yes").exit_code == 0
    assert run("--prefix", "s3://lifted/", "--lift", "--yes").stdout == "lifted 1 tombstones\n"
    with (tmp_path / "journal").open("ab") as journal:
        journal.write(b'{"v":1,"dig')  # killed while it wrote
    # A backup from before the tombstone, and from before the table: another key of the hashes.
    execute(store_url, "TRUNCATE forgotten, forget_keys")
    execute(store_url, "INSERT INTO forget_keys (inner_pad, outer_pad) VALUES (decode(repeat('aa', 64), 'hex'), 'b')")
    succeed(store, a_job(key=KEY, metadata=METADATA), model)
    succeed(store, a_job(bucket="lifted"), model)

    assert run("--replay", str(tmp_path / "journal"), "--yes").exit_code == 0

    assert rows(store_url, "SELECT bucket FROM recordings") == [("lifted",)]
    with pytest.raises(Forgotten):
        store.claim(a_claim(a_job(key=KEY), model))
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o600


def test_a_lifted_recording_is_analysed_again(
    store: Store, client: Any, ledger: Ledger, model: ModelFacts, run: Any
) -> None:
    job = a_job(key=KEY, enqueued_at=time.time())
    ledger.open(job)
    assert run(f"s3://recordings/{KEY}", "--yes").exit_code == 0
    # A worker that still has the message does not open the job again.
    ledger.defer(job, 1)
    ledger.send_again(job)
    assert ledger.depth().open == ledger.depth().total_waiting == 0

    assert run("--lift", f"s3://recordings/{KEY}").stdout.startswith("Nothing was lifted.")
    with pytest.raises(Forgotten):
        store.claim(a_claim(job, model))
    assert run("--lift", f"s3://recordings/{KEY}", "--yes").stdout == "lifted 1 tombstones\n"
    succeed(store, a_job(key=KEY), model)
    assert ledger.open(a_job(job_id=job.job_id, key=KEY, enqueued_at=time.time() + 1))


def test_readers_of_outcomes_keep_their_place(client: Any, ledger: Ledger, run: Any) -> None:
    jobs = [a_job(key=key, enqueued_at=time.time()) for key in ("1.wav", "2.wav", KEY, "4.wav", "5.wav")]
    ledger.open_many(jobs)
    for job in jobs:
        ledger.close(job, told(job))
    reader = OutcomeGroup(client, "b", "upstream", "c", idle_s=0.1)
    received = [next(reader).job_id for _ in range(4)]
    assert received == [job.job_id for job in jobs[:4]]  # the fourth is not acknowledged

    assert run(f"s3://recordings/{KEY}", "--yes").exit_code == 0

    assert leftovers.in_broker(client, [KEY]) == []
    assert [one.job_id for one in OutcomeGroup(client, "b", "upstream", "c", idle_s=0.1)] == [
        job.job_id for job in jobs[3:]
    ]
    last = client.xinfo_stream(OUTCOMES_KEY)["last-generated-id"]
    assert last.endswith(b"-5")


def test_the_objects_are_deleted_with_all_versions_on_demand(
    bucket: Bucket, store: Store, model: ModelFacts, run: Any
) -> None:
    bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"})
    for key in ("a.wav", "a.wav", "a.wav.other"):
        bucket.put(key, uuid.uuid4().bytes)
    uri = f"s3://{bucket.name}/a.wav"
    assert run(uri, "--yes").exit_code == 0
    assert bucket.client.head_object(Bucket=bucket.name, Key="a.wav")

    assert json.loads(run(uri, "--delete-objects", "--json").stdout)["counts"] == {"versions of objects": 2}
    assert run(uri, "--delete-objects", "--yes").exit_code == 0

    left = bucket.client.list_object_versions(Bucket=bucket.name)
    assert [one["Key"] for one in left.get("Versions", []) + left.get("DeleteMarkers", [])] == ["a.wav.other"]
    bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Suspended"})


def test_the_trail_is_never_changed_or_deleted(store_url: str, run: Any) -> None:
    assert run(f"s3://recordings/{KEY}", "--yes").exit_code == 0
    before = rows(store_url, "SELECT * FROM audit_trail")
    assert len(before) == 2
    for statement in ("UPDATE audit_trail SET actor = 'x'", "DELETE FROM audit_trail", "TRUNCATE audit_trail"):
        with pytest.raises(Exception, match="never changed or deleted"):
            execute(store_url, statement)
    assert rows(store_url, "SELECT * FROM audit_trail") == before


def test_old_recordings_of_a_prefix_are_forgotten_and_newer_ones_and_others_stay(
    store: Store, store_url: str, model: ModelFacts, run: Any
) -> None:
    old = [a_job(key=f"tenant/{number}.wav") for number in range(5)]
    for job in (*old, a_job(key="other/old.wav")):
        succeed(store, job, model)
    execute(store_url, "ALTER TABLE recordings DISABLE TRIGGER USER")
    execute(store_url, "UPDATE recordings SET updated_at = now() - interval '400 d'")
    execute(store_url, "ALTER TABLE recordings ENABLE TRIGGER USER")
    succeed(store, a_job(key="tenant/new.wav"), model)
    succeed(store, a_job(key="tenant/0.wav"), model, etag="new content")
    words = ("--prefix", "s3://recordings/tenant/", "--older-than", "365d")

    planned = json.loads(run(*words, "--json").stdout)["counts"]
    done = json.loads(run(*words, "--yes", "--json").stdout)["counts"]

    assert planned == done
    assert planned["recordings"] == 4
    left = {key for (key,) in rows(store_url, "SELECT key FROM recordings")}
    assert left == {"other/old.wav", "tenant/new.wav", "tenant/0.wav"}
    with pytest.raises(Forgotten):
        store.claim(a_claim(old[1], model))
    succeed(store, a_job(key="tenant/newer.wav"), model)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "Give recordings"),
        (["s3://recordings/k", "--again"], "Give recordings"),
        (["--lift", "--again"], "--lift takes"),
        (["--again", "--delete-objects", "--yes"], "--delete-objects takes"),
        (["--again"], "without --yes"),
        (["--older-than", "1d", "--subject", "P"], "--older-than takes one --prefix"),
        (["--older-than", "2990-01-01", "--prefix", "s3://recordings"], "in the future"),
    ],
)
def test_wrong_words_are_refused(run: Any, words: list[str], problem: str) -> None:
    done = run(*words)
    assert done.exit_code == 2
    assert problem in done.output
