"""The results of the probes, for a good worker and for each way in which a worker fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak import faulty_worker
from tests.support.deployment import READY_S, Deployment
from tests.support.processes import TUSSIS, Running
from tests.support.sounds import wav
from tests.support.waiting import wait_until
from tussis.worker.status import probes
from tussis.worker.status.probes import ProbeResult
from tussis.worker.status.rundir import ParentStatus, Phase, RunDir, remove_leftovers, run_dirs

#: Seconds, for a busy machine.
SOON_S = 60.0


def probe(word: str, tmp_path: Path, *arguments: str) -> tuple[int, str]:
    """Return the exit status and the output of ``tussis health``."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TUSSIS_RUN_DIR": str(tmp_path)}
    ended = subprocess.run(
        [TUSSIS, "health", word, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stderr == ""
    return ended.returncode, ended.stdout


def name_of(worker: Running) -> str:
    """Return the name of the worker."""
    return str(worker.wait_for_event("worker_ready", READY_S)["worker"])


def one(verdicts: list[ProbeResult]) -> str:
    """Return the reason of the only verdict; ``no worker`` when there is none."""
    return verdicts[0].reason if verdicts else "no worker"


def test_a_good_worker_is_live_and_ready_and_a_stopped_process_is_not(deployment: Deployment, tmp_path: Path) -> None:
    """Given a live worker, when it gets SIGSTOP, then it is not live after the silence, but again after SIGCONT."""
    assert probe("live", tmp_path) == (1, f"no worker runs with TUSSIS_RUN_DIR={tmp_path}\n")
    worker = deployment.worker()
    name = name_of(worker)
    wait_until(lambda: one(probes.ready(tmp_path)) == "", SOON_S, "readiness")
    assert probe("live", tmp_path) == (0, f"{name}: live\n")
    assert probe("ready", tmp_path, "--worker", name) == (0, f"{name}: ready\n")
    assert probe("ready", tmp_path, "--worker", "another")[0] == 1

    worker.signal(signal.SIGSTOP)
    try:
        wait_until(lambda: "it hangs: consuming, no beat" in one(probes.live(tmp_path, silence_s=3)), 20, "no life")
        status, said = probe("live", tmp_path, "--silence", "3")
        assert status == 1
        assert said.startswith(f"{name}: not live: it hangs: consuming, no beat for ")
    finally:
        worker.signal(signal.SIGCONT)
    wait_until(lambda: one(probes.live(tmp_path, silence_s=3)) == "", SOON_S, "life")
    worker.signal(signal.SIGTERM)
    assert worker.wait(SOON_S) == 0
    assert probe("live", tmp_path)[0] == 1


def test_before_the_model_is_loaded_it_is_live_and_not_ready(deployment: Deployment, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    deployment.environment[faulty_worker.SLOW_LOAD] = str(gate)
    worker = deployment.start_worker(faulty=True, concurrency=1)
    wait_until(lambda: one(probes.ready(tmp_path)) == "it is loading the model", READY_S, "the load")
    first = run_dirs(tmp_path)[0].last_beat()
    assert first is not None
    # Longer than the silence: the main thread writes heartbeats while it waits for its children.
    wait_until(lambda: (beat := run_dirs(tmp_path)[0].last_beat()) and beat.at > first.at + 4, SOON_S, "beats")
    wait_until(lambda: one(probes.live(tmp_path, silence_s=3)) == "", SOON_S, "life")
    assert probe("ready", tmp_path)[0] == 1
    gate.unlink()
    worker.wait_for_event("worker_ready", READY_S)
    wait_until(lambda: one(probes.ready(tmp_path)) == "", SOON_S, "readiness")


@pytest.mark.faults_only
def test_an_event_loop_that_hangs_is_not_alive_although_a_thread_beats(deployment: Deployment, tmp_path: Path) -> None:
    stuck = tmp_path / "stuck"
    deployment.environment[faulty_worker.STUCK_LOOP] = str(stuck)
    deployment.worker(faulty=True, concurrency=1)
    wait_until(lambda: one(probes.live(tmp_path, silence_s=3)) == "", SOON_S, "life")
    stuck.touch()
    wait_until(lambda: "it hangs: consuming, no beat" in one(probes.live(tmp_path, silence_s=3)), 30, "no life")

    def ahead() -> bool:
        house, beat = run_dirs(tmp_path)[0].parent_status(), run_dirs(tmp_path)[0].last_beat()
        return house is not None and beat is not None and house.at > beat.at + 2

    wait_until(ahead, SOON_S, "notes of the thread, and no beat")


@pytest.mark.faults_only
def test_a_loop_that_turns_and_takes_nothing_is_not_alive(deployment: Deployment, tmp_path: Path) -> None:
    """Given a worker that stops taking messages, when messages wait and children are free, then it is not live."""
    deaf = tmp_path / "deaf"
    deployment.environment[faulty_worker.DEAF] = str(deaf)
    deployment.worker(faulty=True, concurrency=2)
    deaf.touch()
    for number in range(6):
        deployment.enqueue(f"{number}.wav", wav(0.3, seed=number))
    wait_until(lambda: "took no message for" in one(probes.live(tmp_path, silence_s=2)), SOON_S, "no life")
    deaf.unlink()
    deployment.wait_drained(90)
    wait_until(lambda: one(probes.live(tmp_path, silence_s=2)) == "", SOON_S, "life")


@pytest.mark.faults_only
def test_servers_that_are_away_leave_it_alive_and_not_ready(deployment: Deployment, tmp_path: Path) -> None:
    deployment.worker(concurrency=1)
    deployment.servers.postgres.kill()
    deployment.enqueue("a.wav", wav(0.5))
    wait_until(lambda: "a process waits: " in one(probes.ready(tmp_path)), SOON_S, "the wait for the database")
    assert one(probes.live(tmp_path)) == ""
    deployment.servers.postgres.start()
    deployment.wait_drained(90)

    deployment.servers.broker.kill()
    wait_until(lambda: one(probes.ready(tmp_path)) == "no connection to the broker", SOON_S, "the loss")
    assert one(probes.live(tmp_path)) == ""
    deployment.servers.broker.start()
    wait_until(lambda: one(probes.ready(tmp_path)) == "", SOON_S, "readiness")


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """A worker's run folder, held by this process."""
    folder = RunDir(tmp_path / "tussis-1-a")
    folder.create("cpu@here")
    return folder


@pytest.mark.faults_only
def test_a_consumer_that_does_not_come_back_to_its_broker_is_not_alive(
    run_dir: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    run_dir.beat(Phase.CONNECTING)
    now = 1000.0 + probes.RECONNECT_S + 1
    run_dir.write_status(ParentStatus(now, 1, 1, broker_since=None, starving_since=None))
    assert one(probes.live(tmp_path)) == ""
    run_dir.write_status(ParentStatus(now, 1, 1, broker_since=now - 5, starving_since=None))
    assert one(probes.live(tmp_path)) == ""
    run_dir.write_status(ParentStatus(now, 1, 1, broker_since=500.0, starving_since=None))
    assert "not connected to the broker for 61 s, although it answers" in one(probes.live(tmp_path))


def test_what_a_killed_worker_leaves_behind_counts_as_none_and_goes_away(tmp_path: Path, run_dir: RunDir) -> None:
    script = (
        "import os, pathlib, signal, sys; from tussis.worker.status.rundir import *\n"
        "RunDir(pathlib.Path(sys.argv[1]) / 'tussis-2-b').create('cpu@gone')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=30, check=False)
    (tmp_path / "tussis-other").mkdir()
    run_dir.beat(Phase.LOADING)
    assert [folder.held for folder in run_dirs(tmp_path)] == [True, False]
    assert [verdict.worker for verdict in probes.live(tmp_path)] == ["cpu@here"]
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tussis-1-a", "tussis-other"]
    run_dir.remove()


def test_a_probe_imports_nothing_heavy() -> None:
    script = (
        "import sys; import tussis.worker.cli.health, tussis.worker.status.probes, tussis.shared.settings\n"
        "print(sorted({'torch', 'celery', 'numpy', 'sqlalchemy', 'redis', 'boto3'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "[]\n"
