"""A worker reads only from the buckets and prefixes of TUSSIS_ALLOWED_BUCKETS."""

from __future__ import annotations

from tests.support.deployment import Deployment
from tests.support.sounds import wav


def test_a_worker_fails_a_job_outside_of_the_allowed_prefixes_by_name(deployment: Deployment) -> None:
    inside = deployment.enqueue("in/a.wav", wav(0.5, seed=1))
    outside = [
        deployment.enqueue("out/a.wav", wav(0.5, seed=2)),
        deployment.enqueue("in/../out/a.wav", None, etag="e1"),
        deployment.enqueue("out/unpinned.wav", None),
    ]

    deployment.worker(concurrency=1, allowed_buckets=f"another,{deployment.bucket.name}/in/")
    deployment.wait_drained(90)

    assert deployment.analysis(inside).state == "succeeded"
    for job in outside:
        assert deployment.analysis(job).error_class == "bucket_not_allowed"
    deployment.assert_accounted(failures=3)
