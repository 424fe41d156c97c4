"""Object stores report forgotten recordings: their jobs end, and nothing of them is stored."""

from __future__ import annotations

import uuid
from typing import Any

import httpx

from tests.support import leftovers
from tests.support.aws import Aws
from tests.support.deployment import Deployment
from tests.support.gateway import HEADERS, start_gateway
from tests.support.outcomes import told
from tests.support.s3_events import record, records
from tests.support.sounds import wav
from tussis.shared.broker import connect

SOON_S = 60.0


def test_what_an_object_store_reports_of_a_forgotten_recording_ends_as_forgotten(
    deployment: Deployment, aws: Aws
) -> None:
    """To a listener and to the gateway: at once, and again after the first jobs have ended."""
    secret, bucket = f"person-{uuid.uuid4().hex}", deployment.bucket
    keys = [f"{secret}/sqs.wav", f"{secret}/http.wav", "other/sqs.wav", "other/http.wav"]
    tags = {}
    for number, key in enumerate(keys):
        bucket.put(key, wav(0.5, seed=number))
        tags[key] = bucket.client.head_object(Bucket=bucket.name, Key=key)["ETag"].strip('"')
    forgotten = deployment.tussis("forget", "--prefix", bucket.uri(f"{secret}/"), "--yes")
    assert forgotten.wait(SOON_S) == 0, forgotten.text
    queue = aws.queue()
    deployment.tussis("listen", "sqs", "--queue-url", queue.url)
    _, url = start_gateway(deployment)
    client: Any = connect(deployment.environment["TUSSIS_BROKER_URL"])

    def report() -> None:
        for by in ("sqs", "http"):
            events = records(*(record(bucket.name, key, eTag=tags[key]) for key in keys if by in key))
            if by == "sqs":
                queue.send(events)
            else:
                answer = httpx.post(f"{url}/v1/s3-events", content=events, headers=HEADERS, timeout=SOON_S)
                assert answer.status_code == 200, answer.text
        queue.wait_empty(SOON_S)

    report()
    deployment.worker(concurrency=2)
    deployment.wait_results(2, SOON_S)
    deployment.wait_drained(SOON_S)
    report()
    deployment.wait_drained(SOON_S)

    assert sorted(analysis.uri for analysis in deployment.analyses()) == [bucket.uri(key) for key in sorted(keys[2:])]
    assert leftovers.in_database(deployment.environment["TUSSIS_DATABASE_URL"], [secret]) == []
    assert leftovers.in_broker(client, [secret]) == []
    ended = [one for one in told(client) if one.error_class is not None]
    assert {(one.uri, one.error_class) for one in ended} == {(None, "forgotten")}
    assert len({one.job_id for one in ended}) == 2
    client.close()
