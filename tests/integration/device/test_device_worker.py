"""`tussis worker gpu` on a CPU: carriers, the device process, and what happens when one of them dies.

Everything but CUDA itself. Faults meet a recording inside the device process (tussis.worker.soak.faulty_device).
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.integration.worker.test_metrics import families, scrape, value
from tests.support.deployment import READY_S, Deployment
from tests.support.models import Tiny, write_tiny
from tests.support.processes import ROOT, Running
from tests.support.sounds import wav
from tests.support.tables import code, table
from tests.support.waiting import wait_until
from tussis.shared.states import AttemptOutcome
from tussis.worker.soak.faulty_worker import STARTS_FILE, with_fault

#: Seconds for a handful of recordings and some new processes on a busy machine.
DRAINED_S = 180.0
#: Long enough for all carriers to have their recordings with the device process, while a run is going on.
COMPANY_S = 3.0


def trial(deployment: Deployment, *arguments: str, concurrency: int = 4, **settings: object) -> Running:
    """A faulty GPU worker on the CPU, ready."""
    return deployment.worker(
        "--provider", "cpu", *arguments, kind="gpu", concurrency=concurrency, faulty=True, **settings
    )


def device_pids(worker: Running) -> list[int]:
    """The process ids of the device processes so far, in order."""
    return [event["pid"] for event in worker.events if event.get("event") == "device_ready"]


def met(file: Path) -> list[str]:
    """The faults that recordings have met."""
    return [line.split()[1] for line in file.read_text().splitlines()] if file.exists() else []


def outcomes(deployment: Deployment, job: object) -> list[tuple[AttemptOutcome | None, bool]]:
    """Each attempt's end, and whether it ran alone."""
    attempts = deployment.store.attempts_of(deployment.analysis(job).id)  # type: ignore[arg-type]
    return [(attempt.outcome, attempt.alone) for attempt in attempts]


@pytest.fixture
def starts_file(deployment: Deployment, tmp_path: Path) -> Path:
    file = tmp_path / "starts"
    deployment.environment[STARTS_FILE] = str(file)
    return file


def test_recordings_share_runs_and_the_rows_say_what_computed_them(deployment: Deployment) -> None:
    """Given a run that takes a while, when others wait meanwhile, then they share the next one; a stop is clean."""
    worker = trial(deployment, "--metrics-port", "0", batch_wait_ms=1000)
    (device,) = device_pids(worker)
    assert any(event.get("event") == "device_trial" for event in worker.events)
    slow = deployment.enqueue("slow.wav", with_fault(f"device-slow-{COMPANY_S}", wav(1.0)))
    others = [deployment.enqueue(f"{number}.wav", wav(1.0, seed=number)) for number in range(9)]
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
    assert served == {(code(row[0]), row[1]) for row in table(ROOT / "docs" / "operate.md", "device metric")}
    living = [worker.pid, *worker.children()]
    assert device in living
    worker.signal(signal.SIGTERM)
    assert worker.wait(DRAINED_S) == 0
    assert not any(psutil.pid_exists(pid) for pid in living)


def test_answers_are_the_cpu_worker_s(deployment: Deployment) -> None:
    jobs = [deployment.enqueue(f"{n}.wav", wav(0.5 + n, seed=n)) for n in range(4)]
    first = trial(deployment)
    deployment.wait_drained(DRAINED_S)
    first.signal(signal.SIGTERM)
    assert first.wait(DRAINED_S) == 0
    again = [deployment.enqueue(f"{n}.wav", wav(0.5 + n, seed=n), again=True) for n in range(4)]
    deployment.worker(concurrency=1)
    deployment.wait_drained(DRAINED_S)
    for one, other in zip(jobs, again, strict=True):
        ours, theirs = deployment.analysis(one), deployment.analysis(other)
        assert ours.id != theirs.id
        assert ours.bag_logit == pytest.approx(theirs.bag_logit, abs=1e-4)
        rows = [[row.logit for row in deployment.store.segments_of(each.id)] for each in (ours, theirs)]
        assert rows[0] == pytest.approx(rows[1], abs=1e-4)


def test_a_crash_with_three_in_the_run_counts_against_none(deployment: Deployment, starts_file: Path) -> None:
    """Given three recordings in one run, when the device process is killed, then all three end as results."""
    worker = trial(deployment, concurrency=3, batch_wait_ms=1000, max_attempts=1)
    (device,) = device_pids(worker)
    jobs = [
        deployment.enqueue(f"{n}.wav", with_fault("device-slow-30" if n == 0 else "device-slow-0", wav(1.0, seed=n)))
        for n in range(3)
    ]
    wait_until(lambda: "device-slow-30" in met(starts_file), DRAINED_S, "the run")
    os.kill(device, signal.SIGKILL)
    deployment.wait_drained(DRAINED_S)
    deployment.assert_accounted()
    worker.wait_for_event("device_lost", DRAINED_S)
    wait_until(lambda: len(device_pids(worker)) == 2, DRAINED_S, "the next process's word")
    ended = [outcomes(deployment, job) for job in jobs]
    assert all(one[-1][0] is AttemptOutcome.SUCCEEDED for one in ended)
    # Who was in the run vanished, not alone; who was not yet in it went on with the new process.
    vanished = [one for one in ended if len(one) > 1]
    assert vanished
    assert {one[0] for one in vanished} == {(AttemptOutcome.VANISHED, False)}
    assert {one[1] for one in vanished} == {(AttemptOutcome.SUCCEEDED, True)}


def test_a_recording_that_crashes_the_device_process_fails_alone(deployment: Deployment, starts_file: Path) -> None:
    good = [deployment.enqueue(f"{n}.wav", wav(1.0, seed=n)) for n in range(5)]
    poison = deployment.enqueue("poison.wav", with_fault("device-segfault", wav(1.0)), priority=4)
    trial(deployment, concurrency=3, max_attempts=3)
    deployment.wait_drained(DRAINED_S)
    deployment.assert_accounted(failures=1)
    analysis = deployment.analysis(poison)
    assert analysis.error_class == "worker_crashed"
    assert outcomes(deployment, poison) == [
        (AttemptOutcome.VANISHED, False),
        *[(AttemptOutcome.VANISHED, True)] * 3,
    ]
    assert met(starts_file) == ["device-segfault"] * 4
    assert all(deployment.analysis(job).state == "succeeded" for job in good)


def test_a_recording_that_crashes_a_carrier_leaves_the_device_process_alone(deployment: Deployment) -> None:
    good = [deployment.enqueue(f"{n}.wav", wav(1.0, seed=n)) for n in range(3)]
    poison = deployment.enqueue("poison.wav", with_fault("segfault", wav(1.0)))
    worker = trial(deployment, concurrency=2, max_attempts=1)
    deployment.wait_drained(DRAINED_S)
    deployment.assert_accounted(failures=1)
    assert deployment.analysis(poison).error_class == "worker_crashed"
    assert all(deployment.analysis(job).state == "succeeded" for job in good)
    assert len(device_pids(worker)) == 1


def test_a_run_that_hangs_is_ended_with_its_stacks(deployment: Deployment, starts_file: Path) -> None:
    """Given a run that holds the interpreter's lock for ever, then it ends at the deadline, and others finish."""
    good = deployment.enqueue("good.wav", wav(1.0))
    hung = deployment.enqueue("hung.wav", with_fault("device-hang", wav(1.0)))
    worker = trial(deployment, concurrency=2, max_attempts=1, inference_timeout_s=5)
    deployment.wait_drained(DRAINED_S)
    deployment.assert_accounted(failures=1)
    assert deployment.analysis(hung).error_class == "worker_crashed"
    assert deployment.analysis(good).state == "succeeded"
    assert any("Timeout" in line for line in worker.stderr)
    assert met(starts_file) == ["device-hang"] * 2


def test_a_failed_run_is_the_failure_of_one(deployment: Deployment, starts_file: Path) -> None:
    """Given a run that fails, then each of its recordings runs alone; a device that stays broken is replaced."""
    good = [deployment.enqueue(f"{n}.wav", wav(1.0, seed=n)) for n in range(4)]
    failing = deployment.enqueue("failing.wav", with_fault("device-fail", wav(1.0)))
    worker = trial(deployment, concurrency=3, max_attempts=1, batch_wait_ms=500)
    deployment.wait_drained(DRAINED_S)
    deployment.assert_accounted(failures=1)
    assert deployment.analysis(failing).error_class == "inference_failed"
    assert len(device_pids(worker)) == 1

    breaking = deployment.enqueue("breaking.wav", with_fault("device-break", wav(1.0)))
    good.append(deployment.enqueue("after.wav", wav(1.0, seed=9)))
    deployment.wait_drained(DRAINED_S)
    deployment.assert_accounted(failures=2)
    assert deployment.analysis(breaking).error_class == "worker_crashed"
    assert all(deployment.analysis(job).state == "succeeded" for job in good)
    wait_until(lambda: len(device_pids(worker)) == 3, DRAINED_S, "the third process")
    worker.wait_for_event("device_broken", DRAINED_S)


def test_a_killed_parent_leaves_no_process(deployment: Deployment, starts_file: Path) -> None:
    deployment.enqueue("slow.wav", with_fault("device-slow-5", wav(1.0)))
    worker = trial(deployment, concurrency=2)
    wait_until(lambda: met(starts_file), DRAINED_S, "the run")
    (device,) = device_pids(worker)
    ours = [psutil.Process(pid) for pid in (device, *(e["pid"] for e in worker.events if e["event"] == "child_ready"))]
    worker.signal(signal.SIGKILL)
    wait_until(lambda: not any(_lives(process) for process in ours), DRAINED_S, "every process to end")


def _lives(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def test_a_model_that_looks_at_its_neighbours_ends_the_worker_with_one_line(
    deployment: Deployment, tmp_path: Path
) -> None:
    path = write_tiny(tmp_path, Tiny(looks_at_neighbours=True))
    worker = deployment.start_worker("--provider", "cpu", kind="gpu", concurrency=1, model=path)
    assert worker.wait(READY_S) == 1
    (line,) = [line for line in worker.stderr if not line.startswith("{")]
    assert line.startswith("tussis: ")
    assert "with its neighbours in a run" in line


def test_a_device_process_that_cannot_start_again_ends_the_worker_with_the_reason(
    deployment: Deployment, tmp_path: Path
) -> None:
    """Given a worker whose model was replaced, when its device process dies, then the worker ends and says why."""
    path = write_tiny(tmp_path)
    worker = deployment.worker("--provider", "cpu", kind="gpu", concurrency=1, model=path)
    write_tiny(tmp_path, Tiny(logit_factor=2.0), version="2")
    os.kill(device_pids(worker)[0], signal.SIGKILL)
    assert worker.wait(DRAINED_S) == 1
    assert "was replaced since this worker started" in worker.stderr[-1]
    assert worker.stderr[-1].startswith("tussis: ")
    assert any(event.get("event") == "device_refused" for event in worker.events)


def test_without_a_gpu_the_worker_refuses_in_one_line(deployment: Deployment) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here: tests/gpu runs the real thing")
    worker = deployment.start_worker(kind="gpu", concurrency=1)
    assert worker.wait(READY_S) == 1
    (line,) = [line for line in worker.stderr if not line.startswith("{")]
    assert line.startswith("tussis: onnxruntime ")
    assert "has no CUDAExecutionProvider" in line
