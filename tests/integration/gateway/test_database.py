"""The routes that need the database: failures, cancellations, and jobs that the broker has forgotten."""

from __future__ import annotations

import time
import uuid

from tests.support.gateway import Gateway
from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, model_facts
from tussis.shared.messages import Job


def fail(gateway: Gateway, key: str) -> tuple[Job, int]:
    """A job that failed, as the database has it."""
    job = a_job(job_id=str(uuid.uuid4()), key=key)
    number = gateway.services.need_store().refuse(a_refusal(job))
    assert isinstance(number, int)
    return job, number


def answer(gateway: Gateway, key: str) -> Job:
    """A job that succeeded, as the database has it."""
    job = a_job(job_id=str(uuid.uuid4()), key=key)
    store = gateway.services.need_store()
    store.register_model(model_facts())
    store.complete(claimed(store.claim(a_claim(job, model_facts()))), a_result())
    return job


def test_a_job_that_the_broker_has_forgotten_is_read_from_the_database(gateway_with_store: Gateway) -> None:
    gateway = gateway_with_store
    job = answer(gateway, "a.wav")

    report = gateway.client.get(f"/v1/jobs/{job.job_id}").json()
    waited = gateway.client.get(f"/v1/jobs/{job.job_id}", params={"wait_s": 5}).json()

    assert (report["state"], report["bag_probability"], len(report["segments"])) == ("succeeded", 0.8, 4)
    assert report["attempts"] == 1
    assert waited == report
    unknown = gateway.client.get(f"/v1/jobs/{uuid.uuid4()}")
    assert (unknown.status_code, unknown.json()["error"]["class"]) == (404, "job_unknown")


def test_failures_are_listed_counted_shown_and_enqueued_again(gateway_with_store: Gateway) -> None:
    gateway = gateway_with_store
    (job, first), (_, second) = fail(gateway, "north/a.wav"), fail(gateway, "south/b.wav")
    error_class = a_refusal(job).error_class

    listed = gateway.client.get("/v1/failures").json()["failures"]
    north = gateway.client.get("/v1/failures", params={"prefix": f"s3://{job.bucket}/north/"}).json()["failures"]
    future = gateway.client.get("/v1/failures", params={"since": "2100-01-01"}).json()["failures"]
    classes = gateway.client.get("/v1/failures/classes").json()["classes"]
    one = gateway.client.get(f"/v1/failures/{first}").json()

    assert [failure["analysis_id"] for failure in listed] == [second, first]
    assert [failure["analysis_id"] for failure in north] == [first]
    assert (future, classes) == ([], {error_class: 2})
    assert (one["error"]["class"], one["job_id"], one["uri"]) == (error_class, job.job_id, job.uri)
    assert gateway.client.get("/v1/failures/999999").status_code == 404

    body = {"analysis_ids": [first, 999_999]}
    looked = gateway.client.post("/v1/failures/retry", json=body).json()
    assert looked == {"done": False, "enqueued": 1, "open": 0, "unknown": [999_999]}
    assert gateway.services.ledger.open_jobs() == 0
    done = gateway.client.post("/v1/failures/retry", json=body | {"dry_run": False}).json()
    repeated = gateway.client.post("/v1/failures/retry", json=body | {"dry_run": False}).json()
    assert done == {"done": True, "enqueued": 1, "open": 0, "unknown": [999_999]}
    assert repeated == {"done": True, "enqueued": 0, "open": 1, "unknown": [999_999]}
    assert gateway.services.ledger.open_jobs() == 1


def test_jobs_are_cancelled_after_a_dry_run(gateway_with_store: Gateway) -> None:
    gateway = gateway_with_store
    jobs = [{"uri": f"s3://clinic/n/{number}.wav", "etag": "x"} for number in range(3)]
    enqueued = gateway.client.post("/v1/jobs/many", json={"jobs": jobs, "batch": "b"}).json()["jobs"]
    gateway.client.post("/v1/jobs", json={"uri": "s3://clinic/m.wav", "etag": "x"})
    job_id = enqueued[0]["job_id"]

    looked = gateway.client.post("/v1/cancellations", json={"prefix": "s3://clinic/n/"}).json()
    assert (looked["done"], looked["cancelled"], looked["queues"]) == (False, 3, {"tussis.any": 3})
    assert gateway.services.ledger.open_jobs() == 4
    by_id = gateway.client.post("/v1/cancellations", json={"job_ids": [job_id], "dry_run": False}).json()
    again = gateway.client.post("/v1/cancellations", json={"job_ids": [job_id], "dry_run": False}).json()
    by_batch = gateway.client.post("/v1/cancellations", json={"batch": "b", "dry_run": False}).json()

    assert (by_id["done"], by_id["cancelled"], by_id["not_cancelled"]) == (True, 1, {})
    assert again["not_cancelled"] == {job_id: "is cancelled already"}
    assert by_batch["cancelled"] == 2
    assert gateway.services.ledger.open_jobs() == 1
    assert gateway.client.get(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"
    batch = gateway.client.get("/v1/batches/b").json()
    assert (batch["cancelled"], batch["open"]) == (3, 0)


def test_a_wrong_selection_cancels_nothing(gateway_with_store: Gateway) -> None:
    gateway = gateway_with_store
    for body, error_class, status in (
        ({}, "request_invalid", 422),
        ({"batch": "a", "prefix": "s3://clinic/"}, "request_invalid", 422),
        ({"batch": "none"}, "batch_unknown", 404),
        ({"prefix": "clinic"}, "invalid_uri", 422),
        ({"job_ids": ["x"]}, "job_unknown", 404),
        ({"batch": "a", "force": True}, "request_invalid", 422),
    ):
        refused = gateway.client.post("/v1/cancellations", json=body)
        assert (refused.status_code, refused.json()["error"]["class"]) == (status, error_class), body


def test_a_database_that_is_away_is_503_and_enqueueing_goes_on(gateway_with_store: Gateway) -> None:
    gateway = gateway_with_store
    gateway.services.need_store().close()
    began = time.monotonic()

    enqueued = gateway.client.post("/v1/jobs", json={"uri": "s3://clinic/a.wav", "etag": "x"})

    assert enqueued.status_code == 202
    assert time.monotonic() - began < 5
