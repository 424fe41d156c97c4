"""Recordings that crash the decoder process, or hang in it, and kills of that process."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import psutil
import pytest

from tests.soak.faulty_worker import with_fault
from tests.support.deployment import Deployment
from tests.support.processes import Running
from tests.support.sounds import wav
from tests.support.waiting import wait_until


def ready_children(worker: Running) -> set[int]:
    return {event["pid"] for event in worker.events if event.get("event") == "child_ready"}


def decoders(worker: Running) -> list[int]:
    """The decoder processes of a worker."""
    found = []
    for pid in worker.children():
        with suppress(psutil.NoSuchProcess):
            if "tussis.worker.audio.jail.process" in psutil.Process(pid).cmdline():
                found.append(pid)
    return found


@pytest.mark.scenario(47)
def test_a_recording_that_crashes_its_decoder_process_fails_alone(deployment: Deployment) -> None:
    crashing = deployment.enqueue("crashing.wav", with_fault("jail-segfault"))
    hanging = deployment.enqueue("hanging.wav", with_fault("jail-hang"))
    good = [deployment.enqueue(f"{number}.wav", wav(1.0, seed=number)) for number in range(4)]
    worker = deployment.worker(concurrency=1, faulty=True, max_attempts=2, decode_timeout_s=3)
    deployment.wait_drained(120)
    deployment.assert_accounted(failures=2)
    assert deployment.analysis(crashing).error_class == "decoder_crashed"
    assert deployment.analysis(hanging).error_class == "decoder_crashed"
    assert {deployment.analysis(job).state for job in good} == {"succeeded"}
    # The child went on. It has started once.
    assert len(ready_children(worker)) == 1
    lost = [event["reason"] for event in worker.events if event.get("event") == "decoder_lost"]
    assert len([reason for reason in lost if "SIGSEGV" in reason]) == 2
    assert len([reason for reason in lost if "did not answer" in reason]) == 2


@pytest.mark.scenario(47)
def test_a_killed_decoder_process_costs_no_recording(deployment: Deployment) -> None:
    worker = deployment.worker(concurrency=1, retry_base_s=0.2, retry_cap_s=0.5)
    killed: set[int] = set()
    for number in range(3):
        jobs = [deployment.enqueue(f"{number}-{one}.wav", wav(2.0, seed=10 * number + one)) for one in range(5)]
        for pid in decoders(worker):
            killed.add(pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deployment.wait_drained(60)
        assert {deployment.analysis(job).state for job in jobs} == {"succeeded"}
    deployment.assert_accounted()
    assert killed
    assert len(ready_children(worker)) == 1


@pytest.mark.scenario(47)
def test_the_decoder_process_ends_with_its_child(deployment: Deployment) -> None:
    worker = deployment.worker(concurrency=1)
    before = decoders(worker)
    assert len(before) == 1
    (child,) = ready_children(worker)
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(before[0]), 20, "the end of the decoder process")
    wait_until(lambda: len(decoders(worker)) == 1, 60, "the decoder process of the new child")
