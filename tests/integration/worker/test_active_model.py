"""A real worker beside a model that is active instead of its own."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from tests.support.deployment import Deployment
from tests.support.processes import TUSSIS
from tests.support.sounds import wav
from tests.support.store import model_facts, rows

#: Seconds, for a busy machine. A worker reports its model every 15 s.
SOON_S = 90.0


def test_a_worker_answers_unnamed_jobs_only_while_its_model_is_active(deployment: Deployment, tmp_path: Path) -> None:
    store, url = deployment.store, deployment.environment["TUSSIS_DATABASE_URL"]
    worker = deployment.worker(concurrency=1)
    [mine] = store.models()
    assert (mine.active, mine.served) == (True, True)
    first = deployment.enqueue("a.wav", wav(1.0))
    deployment.wait_drained(SOON_S)
    assert deployment.analysis(first).model == mine.model

    store.register_model(model_facts(name="newer", version="2"))
    said = worker.wait_for_event("model_not_active", SOON_S)
    assert (said["level"], said["model"], said["active"]) == ("warning", mine.model, "newer@2")
    probe = subprocess.run(
        [TUSSIS, "health", "ready"], env=deployment.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert probe.returncode == 0, probe.stdout
    assert probe.stdout.endswith(f": ready (serves {mine.model}, active is newer@2)\n")

    routed = deployment.enqueue("b.wav", wav(1.5))
    missing = deployment.enqueue("missing.wav", None)
    named = deployment.enqueue("c.wav", wav(2.0), model=mine.model)
    for job, outcome in ((routed, "routed"), (missing, "routed"), (named, "succeeded")):
        worker.wait_for_event("job_done", SOON_S, job_id=job.job_id, outcome=outcome)
    assert {analysis.uri for analysis in deployment.analyses()} == {first.uri, named.uri}
    assert deployment.ledger.which_open([routed.job_id, missing.job_id]) == {routed.job_id, missing.job_id}

    store.activate(mine.model, activated_by="test")
    worker.wait_for_event("model_active", SOON_S, model=mine.model)
    answered = deployment.enqueue("d.wav", wav(2.5))
    worker.wait_for_event("job_done", SOON_S, job_id=answered.job_id, outcome="succeeded")
    worker.signal(signal.SIGTERM)
    assert worker.wait(SOON_S) == 0
    assert rows(url, "SELECT last_served_at < now() - interval '59 s' FROM models WHERE name <> 'newer'") == [(True,)]
    assert store.active_model() is not None
