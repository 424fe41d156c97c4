"""A GPU worker's device process that dies, and which recordings count a crash. On the CPU: all code but CUDA.

Faults occur inside the device process (tests.soak.faulty_device).
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.soak.faulty_device import DISTURBANCES, DISTURBED
from tests.soak.faulty_worker import STARTS_FILE, with_fault
from tests.support.deployment import Deployment
from tests.support.sounds import wav
from tests.support.trials import DRAINED_S, device_pids, met, outcomes, trial
from tests.support.waiting import wait_until
from tussis.shared.states import AttemptOutcome


@pytest.fixture
def starts_file(deployment: Deployment, tmp_path: Path) -> Path:
    file = tmp_path / "starts"
    deployment.environment[STARTS_FILE] = str(file)
    return file


def test_a_crash_with_three_in_the_run_counts_against_none(deployment: Deployment, starts_file: Path) -> None:
    """Given three recordings in one run, when the device process is killed, then all three get results."""
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
    # The attempts whose recordings were in the run vanished, and were not exclusive. A recording not yet in the run
    # continued with the new process.
    vanished = [one for one in ended if len(one) > 1]
    assert vanished
    assert {one[0] for one in vanished} == {(AttemptOutcome.VANISHED, False)}
    assert {one[1] for one in vanished} == {(AttemptOutcome.SUCCEEDED, True)}


@pytest.mark.parametrize("max_attempts", [1, 3])
def test_a_recording_that_crashes_the_device_process_fails_alone(
    deployment: Deployment, starts_file: Path, max_attempts: int
) -> None:
    good = [deployment.enqueue(f"{n}.wav", wav(1.0, seed=n)) for n in range(5)]
    poison = deployment.enqueue("poison.wav", with_fault("device-segfault", wav(1.0)), priority=4)
    trial(deployment, concurrency=3, max_attempts=max_attempts)
    deployment.wait_drained(DRAINED_S)
    deployment.assert_accounted(failures=1)
    analysis = deployment.analysis(poison)
    assert analysis.error_class == "worker_crashed"
    assert outcomes(deployment, poison) == [
        (AttemptOutcome.VANISHED, False),
        *[(AttemptOutcome.VANISHED, True)] * max_attempts,
    ]
    assert met(starts_file) == ["device-segfault"] * (1 + max_attempts)
    assert all(deployment.analysis(job).state == "succeeded" for job in good)


def test_a_recording_that_crashes_a_child_leaves_the_device_process_alone(deployment: Deployment) -> None:
    good = [deployment.enqueue(f"{n}.wav", wav(1.0, seed=n)) for n in range(3)]
    poison = deployment.enqueue("poison.wav", with_fault("segfault", wav(1.0)))
    worker = trial(deployment, concurrency=2, max_attempts=1)
    deployment.wait_drained(DRAINED_S)
    deployment.assert_accounted(failures=1)
    assert deployment.analysis(poison).error_class == "worker_crashed"
    assert all(deployment.analysis(job).state == "succeeded" for job in good)
    assert len(device_pids(worker)) == 1


def test_a_run_that_hangs_is_ended_with_its_stacks(deployment: Deployment, starts_file: Path) -> None:
    """Given a run that holds the GIL forever, then the run ends at the deadline, and other recordings finish."""
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
    """Given a run that fails, then each of its recordings runs alone. A device that keeps failing is replaced."""
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


#: A child notices these at once. With the other ones it waits 30 s for the rest of a message.
_SEEN_AT_ONCE = [name for name in DISTURBANCES if not name.startswith("stop")]
_WAITED_FOR = [name for name in DISTURBANCES if name.startswith("stop")]


@pytest.mark.scenario(35)
@pytest.mark.parametrize("chosen", [_SEEN_AT_ONCE, _WAITED_FOR], ids=["at-once", "waited-for"])
def test_disturbed_connections_to_the_device_process_change_no_answer(
    deployment: Deployment, starts_file: Path, chosen: list[str]
) -> None:
    """Given replies that are cut, repeated, swapped or damaged, then the stored answers equal those of a normal run."""
    sounds = {f"{number}.wav": wav(0.5 + number % 3, seed=number) for number in range(3 * len(chosen) + 4)}
    deployment.environment[DISTURBED] = ",".join(chosen)
    disturbed = trial(deployment, concurrency=4)
    first = [deployment.enqueue(name, data) for name, data in sounds.items()]
    deployment.wait_drained(DRAINED_S)
    assert set(met(starts_file)) == {f"wire-{name}" for name in chosen}
    assert len(device_pids(disturbed)) == 1
    # No recording counts a crash. One that was disturbed on every connection of its attempt was deferred.
    ended = {outcome for job in first for outcome, _ in outcomes(deployment, job)}
    assert ended <= {AttemptOutcome.SUCCEEDED, AttemptOutcome.TRANSIENT}
    disturbed.signal(signal.SIGTERM)
    assert disturbed.wait(DRAINED_S) == 0

    del deployment.environment[DISTURBED]
    trial(deployment, concurrency=4)
    second = [deployment.enqueue(name, data, again=True) for name, data in sounds.items()]
    deployment.wait_drained(DRAINED_S)
    deployment.assert_accounted()
    for one, other in zip(first, second, strict=True):
        answers = [deployment.analysis(job) for job in (one, other)]
        assert answers[0].id != answers[1].id
        assert answers[0].bag_probability == pytest.approx(answers[1].bag_probability, abs=1e-4)
        assert answers[0].bag_logit == pytest.approx(answers[1].bag_logit, abs=1e-4)
        rows = [
            [value for row in deployment.store.segments_of(each.id) for value in (row.probability, row.logit)]
            for each in answers
        ]
        assert rows[0] == pytest.approx(rows[1], abs=1e-4)


def test_a_run_that_lacks_memory_is_repeated_in_smaller_ones(deployment: Deployment, starts_file: Path) -> None:
    """Given memory for one recording per run, and one that never fits, then that one is deferred and fails at last."""
    worker = trial(
        deployment,
        concurrency=3,
        max_attempts=1,
        batch_wait_ms=1000,
        retry_base_s=0.1,
        retry_cap_s=0.1,
        retry_total_s=0.15,
    )
    good = [deployment.enqueue(f"{n}.wav", with_fault("device-memory-1", wav(1.0, seed=n))) for n in range(6)]
    never = deployment.enqueue("never.wav", with_fault("device-memory-0", wav(1.0)))
    deployment.wait_drained(DRAINED_S)
    deployment.assert_accounted(failures=1)
    assert all(deployment.analysis(job).state == "succeeded" for job in good)
    assert {tuple(outcomes(deployment, job)) for job in good} == {((AttemptOutcome.SUCCEEDED, False),)}
    assert [outcome for outcome, _ in outcomes(deployment, never)][:-1] == [AttemptOutcome.TRANSIENT]
    assert deployment.analysis(never).error_class == "needs_memory"
    assert len(device_pids(worker)) == 1
    assert any(event.get("event") == "run_short" and event["recordings"] > 1 for event in worker.events)


def test_a_killed_parent_leaves_no_process(deployment: Deployment, starts_file: Path) -> None:
    deployment.enqueue("slow.wav", with_fault("device-slow-5", wav(1.0)))
    worker = trial(deployment, concurrency=2)
    wait_until(lambda: met(starts_file), DRAINED_S, "the run")
    (device,) = device_pids(worker)
    ours = [psutil.Process(pid) for pid in (device, *(e["pid"] for e in worker.events if e["event"] == "child_ready"))]
    worker.signal(signal.SIGKILL)
    wait_until(lambda: not any(_lives(process) for process in ours), DRAINED_S, "every process to end")


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it ended between the two calls
        return False
