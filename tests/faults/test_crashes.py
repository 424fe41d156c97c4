"""Processes that die: children, workers, and recordings that crash them."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.soak.faulty_worker import KILL_AFTER_COMMIT, STARTS_FILE, with_fault
from tests.support.deployment import Deployment
from tests.support.encoding import muxed
from tests.support.processes import Running
from tests.support.recordings import cough_like
from tests.support.sounds import wav
from tests.support.waiting import PATIENCE, wait_until
from tussis.shared.states import AttemptOutcome

#: Short, so that a test can wait for the second delivery; the default is 60 s.
VISIBILITY_S = 10


def starts(file: Path) -> list[tuple[int, str]]:
    """Return pid and fault of every recording that was started."""
    if not file.exists():
        return []
    return [(int(pid), name) for pid, name in (line.split() for line in file.read_text().splitlines())]


def children(worker: Running) -> list[int]:
    """Return the pids of the worker's children that are ready."""
    living = set(worker.children())
    return [e["pid"] for e in worker.events if e.get("event") == "child_ready" and e["pid"] in living]


def stop_with_a_message(deployment: Deployment, worker: Running) -> None:
    """Stop a worker that waits for a message, and have the broker deliver one to it.

    The message is then in no list, and not yet recorded as in flight. The worker waits for one second at a time. The
    broker cannot deliver between two of these waits, or while the worker still settles the message before.
    """
    for number in range(30):
        deployment.bucket.put(f"{number}.wav", wav(1.0, seed=number))
        worker.signal(signal.SIGSTOP)
        deployment.enqueue(f"{number}.wav", None)
        # The broker delivers within the push, or not at all.
        if deployment.ledger.depth().total_waiting == 0:
            return
        worker.signal(signal.SIGCONT)
        deployment.wait_drained(60)
    pytest.fail("the worker was never seen to wait for work")


@pytest.fixture
def starts_file(deployment: Deployment, tmp_path: Path) -> Path:
    file = tmp_path / "starts"
    deployment.environment[STARTS_FILE] = str(file)
    return file


@pytest.mark.scenario(1)
def test_a_killed_child_s_recording_runs_again_within_10_s(deployment: Deployment, starts_file: Path) -> None:
    job = deployment.enqueue("slow.wav", with_fault("slow-4", wav(1.0)))
    deployment.worker(concurrency=1, faulty=True, visibility_timeout_s=60)
    [(pid, _)] = wait_until(lambda: starts(starts_file), 30, "the recording to be begun")
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    wait_until(lambda: len(starts(starts_file)) == 2, 30, "the second start")
    # The limit includes the load of the model in the new child.
    assert time.monotonic() - killed < 10 * PATIENCE
    deployment.wait_drained(60)
    deployment.assert_accounted()
    outcomes = [attempt.outcome for attempt in deployment.store.attempts_of(deployment.analysis(job).id)]
    assert outcomes == [AttemptOutcome.VANISHED, AttemptOutcome.SUCCEEDED]


@pytest.mark.scenario(2)
def test_a_killed_worker_s_recording_runs_on_another(deployment: Deployment, starts_file: Path) -> None:
    first = deployment.worker(concurrency=1, faulty=True, visibility_timeout_s=VISIBILITY_S)
    second = deployment.worker(concurrency=1, faulty=True, visibility_timeout_s=VISIBILITY_S)
    deployment.enqueue("slow.wav", with_fault("slow-4", wav(1.0)))
    wait_until(lambda: starts(starts_file), 30, "the recording to be begun")
    holder = first if starts(starts_file)[0][0] in first.children() else second
    holder.signal(signal.SIGKILL, group=True)
    killed = time.monotonic()
    wait_until(lambda: len(starts(starts_file)) == 2, 60, "the second start")
    # Visibility timeout, a heartbeat before the kill, the restore interval.
    assert time.monotonic() - killed < (VISIBILITY_S + 5 + 5 + 5) * PATIENCE
    deployment.wait_drained(60)
    deployment.assert_accounted()


@pytest.mark.scenario(3)
def test_a_long_task_starts_once(deployment: Deployment, starts_file: Path) -> None:
    deployment.enqueue("slow.wav", with_fault("slow-16", wav(1.0)))
    for _ in range(2):
        deployment.start_worker(concurrency=1, faulty=True, visibility_timeout_s=5)
    wait_until(lambda: starts(starts_file), 90, "the recording to be begun")
    deployment.wait_drained(60)
    deployment.assert_accounted()
    assert len(starts(starts_file)) == 1
    assert deployment.analyses()[0].attempts == 1


@pytest.mark.scenario(4)
def test_a_message_popped_by_a_stopped_worker_comes_back(deployment: Deployment) -> None:
    worker = deployment.worker(concurrency=1)
    stop_with_a_message(deployment, worker)
    assert deployment.ledger.depth().in_flight == 0
    worker.signal(signal.SIGKILL, group=True)
    deployment.worker(concurrency=1)
    deployment.wait_drained(60)
    deployment.assert_accounted()


@pytest.mark.scenario(5)
@pytest.mark.timeout(600)
def test_a_storm_of_kills_loses_and_doubles_nothing(deployment: Deployment) -> None:
    rng = random.Random(5)
    for number in range(400):
        deployment.enqueue(f"{number}.wav", wav(0.3, seed=number))
    workers = [deployment.worker(concurrency=2, visibility_timeout_s=VISIBILITY_S, max_attempts=20)]
    kills = 0
    while kills < 14 and deployment.ledger.depth().open:
        target = rng.choice(workers)
        victims = children(target)
        if rng.random() < 0.3:
            target.signal(signal.SIGKILL, group=True)
            workers.remove(target)
            workers.append(deployment.worker(concurrency=2, visibility_timeout_s=VISIBILITY_S, max_attempts=20))
        elif victims:
            psutil.Process(rng.choice(victims)).kill()
        kills += 1
        deployment.wait_results(min(deployment.store.counts().succeeded + 9, 400), 120)
    assert kills >= 8
    deployment.wait_drained(180)
    deployment.assert_accounted()


@pytest.mark.scenario(13)
def test_a_kill_between_commit_and_acknowledgement_changes_nothing(
    deployment: Deployment, tmp_path: Path, starts_file: Path
) -> None:
    deployment.environment[KILL_AFTER_COMMIT] = str(tmp_path / "killed")
    deployment.enqueue("a.wav", with_fault("slow-0", wav(1.0)))
    deployment.worker(concurrency=1, faulty=True)
    wait_until(lambda: (tmp_path / "killed").exists(), 60, "the kill")
    deployment.wait_drained(60)
    deployment.assert_accounted()
    assert len(starts(starts_file)) == 1
    assert deployment.analyses()[0].attempts == 1


@pytest.mark.scenario(14)
@pytest.mark.parametrize("max_attempts", [1, 3])
def test_a_recording_that_crashes_the_process_fails_and_its_neighbours_finish(
    deployment: Deployment, starts_file: Path, max_attempts: int
) -> None:
    good = [deployment.enqueue(f"{number}.wav", wav(0.5, seed=number)) for number in range(6)]
    poison = deployment.enqueue("poison.wav", with_fault("segfault"), priority=4)
    deployment.worker(concurrency=2, faulty=True, max_attempts=max_attempts)
    deployment.wait_drained(120)
    deployment.assert_accounted(failures=1)
    analysis = deployment.analysis(poison)
    assert analysis.error_class == "worker_crashed"
    assert len(starts(starts_file)) == max_attempts
    attempts = deployment.store.attempts_of(analysis.id)
    assert [attempt.outcome for attempt in attempts] == [AttemptOutcome.VANISHED] * max_attempts
    assert all(deployment.analysis(job).state == "succeeded" for job in good)


@pytest.mark.scenario(15)
def test_a_recording_whose_process_is_killed_for_memory_fails(deployment: Deployment, starts_file: Path) -> None:
    deployment.enqueue("good.wav", wav(0.5))
    poison = deployment.enqueue("poison.wav", with_fault("memory"))
    deployment.worker(concurrency=1, faulty=True, max_attempts=2)
    deployment.wait_drained(120)
    deployment.assert_accounted(failures=1)
    assert deployment.analysis(poison).error_class == "worker_crashed"
    assert len(starts(starts_file)) == 2


@pytest.mark.scenario(16)
def test_a_hung_native_call_is_ended_and_fails(deployment: Deployment, starts_file: Path) -> None:
    good = deployment.enqueue("good.wav", wav(0.5))
    hung = deployment.enqueue("hung.wav", with_fault("hang"))
    worker = deployment.worker(concurrency=1, faulty=True, max_attempts=2, decode_timeout_s=5)
    deployment.wait_drained(120)
    deployment.assert_accounted(failures=1)
    assert deployment.analysis(hung).error_class == "worker_crashed"
    assert deployment.analysis(good).state == "succeeded"
    assert len(starts(starts_file)) == 2
    assert any("most recent call first" in line for line in worker.stderr), worker.stderr
    assert any("signal 14 (SIGALRM)" in str(event.get("message")) for event in worker.events)


def test_a_fault_of_our_own_making_is_a_visible_failure(deployment: Deployment, starts_file: Path) -> None:
    job = deployment.enqueue("odd.wav", with_fault("raise"))
    deployment.worker(concurrency=1, faulty=True)
    deployment.wait_drained(60)
    deployment.assert_accounted(failures=1)
    assert deployment.analysis(job).error_class == "internal"
    assert len(starts(starts_file)) == 1


@pytest.mark.scenario(37)
def test_8_channels_and_odd_speakers_are_analysed_beside_others(deployment: Deployment, tmp_path: Path) -> None:
    """PyAV crashed the process on both; ``tests/unit/audio/test_audio_channels.py`` has every codec."""
    surround = muxed(tmp_path / "surround.m4a", 48_000, (cough_like(1.0, 48_000, channels=8), "aac"))
    odd = muxed(
        tmp_path / "odd.mov", 48_000, (cough_like(1.0, 48_000, channels=2), "pcm_s16le"),
        options=("-af", "channelmap=map=1|0:channel_layout=FR+FL"),
    )  # fmt: skip
    jobs = [
        deployment.enqueue("good.wav", wav(1.0)),
        deployment.enqueue("surround.m4a", surround),
        deployment.enqueue("odd.mov", odd),
        deployment.enqueue("good-too.wav", wav(1.0, seed=1)),
    ]
    worker = deployment.worker(concurrency=1)
    first = children(worker)
    deployment.wait_drained(60)
    deployment.assert_accounted()
    assert [deployment.analysis(job).state for job in jobs] == ["succeeded"] * 4
    assert [deployment.analysis(job).attempts for job in jobs] == [1] * 4
    assert children(worker) == first
