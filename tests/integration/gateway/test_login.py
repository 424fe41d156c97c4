"""The gateway's login of docs/operate.md is enough for every route."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import redis

from tests.support.gateway import HEADERS, Gateway, gateway_settings, serving
from tests.support.outcomes import a_job, succeeded
from tests.support.processes import ROOT
from tests.support.servers import Bucket
from tussis.shared.broker import connect
from tussis.shared.ledger import Ledger
from tussis.shared.outcome_group import OutcomeGroup

TEXT = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
(RIGHTS,) = re.findall(r"^ACL SETUSER gateway on >PASSWORD (.+)$", TEXT, re.MULTILINE)


def use_every_route(gateway: Gateway) -> None:
    client = gateway.client
    again = {"Idempotency-Key": "k"}
    for _ in range(2):
        assert client.post("/v1/recordings", content=b"x", headers=again).status_code == 202
    assert client.post("/v1/jobs", json={"uri": f"s3://{gateway.bucket}/absent"}, headers=again).status_code == 422
    jobs = [{"uri": f"s3://clinic/{number}.wav", "etag": "x"} for number in range(3)]
    body = {"jobs": jobs, "batch": "b", "close_batch": True}
    job_id = client.post("/v1/jobs/many", json=body).json()["jobs"][0]["job_id"]
    assert client.get("/v1/batches").status_code == client.get("/v1/batches/b").status_code == 200
    assert client.get(f"/v1/jobs/{job_id}?wait_s=0.1").json()["state"] == "open"
    for select in ({"prefix": "s3://clinic/1"}, {"job_ids": [job_id]}, {"batch": "b"}):
        for dry_run in (True, False):
            answer = client.post("/v1/cancellations", json=select | {"dry_run": dry_run})
            assert answer.status_code == 200, answer.text
    assert client.get("/v1/batches/b").json()["state"] == "done"
    for query in ({}, {"group": "g"}):
        with client.stream("GET", "/v1/outcomes", params=query, headers=HEADERS) as response:
            assert response.status_code == 200, response.read()
    assert client.post("/v1/outcomes/acknowledge", json={"group": "g", "ids": ["1-1"]}).status_code == 200
    assert "tussis_http_open_jobs" in client.get("/v1/metrics").text
    assert client.get("/healthz/ready").status_code == 200


def test_the_documents_login_is_enough(s3_environment: None, broker_url: str, store_url: str, bucket: Bucket) -> None:
    parts = urlsplit(broker_url)
    url = urlunsplit(parts._replace(netloc=f"gateway:secret@{parts.hostname}:{parts.port}"))
    with redis.Redis.from_url(broker_url) as admin:
        command: Any = admin.execute_command
        command("ACL", "SETUSER", "gateway", "reset", "on", ">secret", *RIGHTS.split(), "+select")
        admin.acl_log_reset()
        try:
            settings = gateway_settings(url, bucket.name, database_url=store_url, serve_max_depth=100)
            with serving(settings, bucket.name) as gateway:
                use_every_route(gateway)
                job = a_job()
                ledger = Ledger(connect(broker_url))
                ledger.open(job)
                ledger.close(job, succeeded(job))
                group = OutcomeGroup(gateway.services.redis, "the broker", "g", "late", take_over_s=0.001)
                assert group.receive()
                assert group.receive()  # taken over again
            assert [entry["object"] for entry in admin.acl_log()] == []
        finally:
            command("ACL", "DELUSER", "gateway")
