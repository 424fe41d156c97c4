"""`tussis worker gpu` on a CPU: everything but CUDA itself. tests/faults/test_device.py has what kills it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.integration.status.test_metrics import families, scrape, value
from tests.soak.faulty_worker import with_fault
from tests.support.deployment import READY_S, Deployment
from tests.support.models import Tiny, write_tiny
from tests.support.processes import ROOT
from tests.support.sounds import wav
from tests.support.tables import code, table
from tests.support.trials import DRAINED_S, device_pids, trial
from tussis.worker.detector.arithmetic import processor

#: Long enough for all children to have their recordings with the device process, while a run is going on.
COMPANY_S = 3.0


def test_recordings_share_runs_and_the_answers_are_the_cpu_worker_s(deployment: Deployment) -> None:
    """Given a run that takes a while, when others wait meanwhile, then they share the next one; a stop is clean."""
    worker = trial(deployment, "--metrics-port", "0", batch_wait_ms=1000)
    (device,) = device_pids(worker)
    assert any(event.get("event") == "device_trial" for event in worker.events)
    slow = deployment.enqueue("slow.wav", with_fault(f"device-slow-{COMPANY_S}", wav(1.0)))
    others = [deployment.enqueue(f"{number}.wav", wav(0.5 + number / 2, seed=number)) for number in range(9)]
    deployment.wait_drained(DRAINED_S)
    deployment.assert_accounted()
    assert {deployment.analysis(job).device for job in (slow, *others)} == {"cpu"}
    samples = scrape(worker)
    assert value(samples, "tussis_device_recordings_total") == 10
    assert value(samples, "tussis_device_runs_total") < 10
    assert value(samples, "tussis_device_ready") == 1
    assert value(samples, "tussis_device_wait_seconds_count") == 10
    served = {
        (f"{family.name}_total" if family.type == "counter" else family.name, family.type)
        for family in families(worker)
        if family.name.startswith("tussis_device_")
    }
    assert served == {(code(row[0]), row[1]) for row in table(ROOT / "docs" / "metrics.md", "device metric")}
    living = [worker.pid, *worker.children()]
    assert device in living
    worker.signal(signal.SIGTERM)
    assert worker.wait(DRAINED_S) == 0
    assert not any(psutil.pid_exists(pid) for pid in living)

    again = [deployment.enqueue(f"{number}.wav", wav(0.5 + number / 2, seed=number), again=True) for number in range(9)]
    deployment.worker(concurrency=1)
    deployment.wait_drained(DRAINED_S)
    for one, other in zip(others, again, strict=True):
        ours, theirs = deployment.analysis(one), deployment.analysis(other)
        assert ours.id != theirs.id
        assert ours.bag_logit == pytest.approx(theirs.bag_logit, abs=1e-4)
        rows = [[row.logit for row in deployment.store.segments_of(each.id)] for each in (ours, theirs)]
        assert rows[0] == pytest.approx(rows[1], abs=1e-4)
        assert ours.software == theirs.software
        assert ours.software is not None
        assert (ours.software.provider, ours.software.graph) == ("cpu", "original")
        assert ours.software.processor == processor()


def test_a_model_that_looks_at_its_neighbours_ends_the_worker_with_one_line(
    deployment: Deployment, tmp_path: Path
) -> None:
    path = write_tiny(tmp_path, Tiny(looks_at_neighbours=True))
    worker = deployment.start_worker("--provider", "cpu", kind="gpu", concurrency=1, model=path)
    assert worker.wait(READY_S) == 1
    (line,) = [line for line in worker.stderr if not line.startswith("{")]
    assert line.startswith("tussis: ")
    assert "with the others in its run" in line


@pytest.mark.faults_only
def test_a_device_process_that_cannot_start_again_ends_the_worker_with_the_reason(
    deployment: Deployment, tmp_path: Path
) -> None:
    """Given a worker whose model was replaced, when its device process dies, then the worker ends and says why."""
    path = write_tiny(tmp_path)
    worker = deployment.worker("--provider", "cpu", kind="gpu", concurrency=1, model=path)
    write_tiny(tmp_path, Tiny(logit_factor=2.0), version="2")
    os.kill(device_pids(worker)[0], signal.SIGKILL)
    assert worker.wait(DRAINED_S) == 1
    assert "was replaced after this worker started" in worker.stderr[-1]
    assert worker.stderr[-1].startswith("tussis: ")
    assert any(event.get("event") == "device_refused" for event in worker.events)
