"""A worker that ends in the middle of a long recording: its finished bags are not scored again."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.support.deployment import Deployment
from tests.support.sounds import wav
from tests.support.waiting import wait_until
from tussis.shared.coverage import Coverage

SECONDS = 300.0


@pytest.mark.scenario(38)
@pytest.mark.parametrize("blow", [signal.SIGTERM, signal.SIGKILL], ids=lambda blow: blow.name)
def test_a_long_recording_goes_on_after_its_finished_bags(
    deployment: Deployment, random_resnet: Path, blow: signal.Signals
) -> None:
    """Given a worker that has saved finished bags, when it ends, then another one continues after them."""
    job = deployment.enqueue("long.wav", wav(SECONDS, seed=3), coverage=Coverage.FULL)
    first = deployment.worker(concurrency=1, model=random_resnet, soft_shutdown_s=1, visibility_timeout_s=10)

    def saved() -> int:
        found = deployment.sql("SELECT bags_done FROM bag_progress")
        return int(str(found[0][0])) if found else 0

    done = wait_until(saved, 120, "finished bags in the store")
    shown = deployment.tussis("job", job.job_id, "--json")
    assert shown.wait(30) == 0
    progress = json.loads("\n".join(shown.stdout))["progress"]
    assert progress["bags_total"] == 19
    assert done <= progress["bags_done"] < 19
    first.signal(blow)
    first.wait(60)
    kept = saved()
    assert done <= kept < 19
    deployment.worker(concurrency=1, model=random_resnet, visibility_timeout_s=10)
    deployment.wait_drained(240)

    deployment.assert_accounted()
    analysis = deployment.analysis(job)
    assert (analysis.state, analysis.attempts, analysis.segments, analysis.truncated) == ("succeeded", 2, 600, False)
    assert deployment.sql("SELECT count(*) FROM bags") == [(19,)]
    assert deployment.sql("SELECT count(*) FROM bag_progress") == [(0,)]
    # What was kept is what would have been computed.
    head = deployment.enqueue("long.wav", None, etag=job.etag, coverage=Coverage.HEAD)
    deployment.wait_drained(60)
    answer, whole = deployment.store.job(head.job_id), deployment.store.job(job.job_id)
    assert answer is not None
    assert whole is not None
    assert [one.probability for one in answer.segments] == [one.probability for one in whole.segments[:32]]
