"""Forgetting against kills: nothing of the person is left anywhere."""

from __future__ import annotations

import signal
import time
import uuid
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support import leftovers
from tests.support.deployment import Deployment
from tests.support.outcomes import a_job, told
from tests.support.sounds import wav
from tests.support.waiting import wait_until
from tussis.shared.broker import connect

#: Jobs for objects that do not exist, so that the command has work to do on the broker.
MANY = 600


@pytest.mark.scenario(48)
def test_a_person_is_forgotten_although_the_command_and_workers_are_killed(
    deployment: Deployment, tmp_path: Path
) -> None:
    subject, secret = f"person-{uuid.uuid4().hex}", f"metadata-{uuid.uuid4().hex}"
    person = {"metadata": {"subject": subject, "note": secret}, "priority": 9}
    real = [deployment.enqueue(f"{secret}/{number}.wav", wav(0.5, seed=number), **person) for number in range(12)]
    others = [deployment.enqueue(f"others/{number}.wav", wav(0.5, seed=99 + number)) for number in range(3)]
    many = [
        a_job(bucket=deployment.bucket.name, key=f"{secret}/many/{number}.wav", etag="e", **person)
        for number in range(MANY)
    ]
    deployment.ledger.open_many(many)
    needles = [subject, secret]
    client: Any = connect(deployment.environment["TUSSIS_BROKER_URL"])
    client.config_set("rdbcompression", "no")  # so that the search reads the file
    journal = tmp_path / "journal.jsonl"
    words = ("forget", "--subject", subject, "--yes", "--journal", str(journal))
    worker = deployment.worker(concurrency=2, log_keys="hash", log_secret="a secret of the logs")
    deployment.wait_results(len(others) + 2, 120)

    def deeds() -> int:
        return len(deployment.sql("SELECT FROM audit_trail"))

    def more_than(before: int) -> bool:
        return deeds() > before

    for _ in range(2):
        before = deeds()
        killed = deployment.tussis(*words)
        wait_until(partial(more_than, before), 120, "the tombstones")
        killed.signal(signal.SIGKILL)
        killed.wait(60)
    worker.signal(signal.SIGKILL)
    worker.wait(60)
    assert leftovers.in_broker(client, needles), "the kills came too late"
    assert not any(needle in worker.text for needle in needles)

    final = deployment.tussis(*words)
    assert final.wait(300) == 0, final.text

    files = Path(client.config_get("dir")["dir"])
    assert leftovers.in_database(deployment.environment["TUSSIS_DATABASE_URL"], needles) == []
    assert leftovers.in_broker(client, needles) == []
    assert leftovers.in_files(files / "appendonlydir", needles) == []
    assert leftovers.in_files(journal.parent, needles) == []
    assert not any(needle in final.text for needle in needles)
    ended = told(client)
    ids = {job.job_id for job in (*real, *many)}
    assert max(Counter(one.job_id for one in ended).values()) == 1
    assert {(one.uri, one.error_class) for one in ended if one.job_id in ids} == {(None, "forgotten")}

    # Workers, and a producer that knows nothing of it, bring nothing back.
    again = [deployment.enqueue(job.key, None, etag=job.etag, **person) for job in real[:3]]
    deployment.ledger.open(a_job(bucket=deployment.bucket.name, key="new/key.wav", enqueued_at=time.time(), **person))
    deployment.worker(concurrency=2)
    deployment.wait_drained(120)
    assert leftovers.in_database(deployment.environment["TUSSIS_DATABASE_URL"], needles) == []
    assert leftovers.in_broker(client, needles) == []
    assert {one.error_class for one in told(client) if one.job_id in {job.job_id for job in again}} == {"forgotten"}
    keys = {key for (key,) in deployment.sql("SELECT key FROM current WHERE state = 'succeeded'")}
    assert keys == {job.key for job in others}
    client.close()
