"""Every line on a worker's outputs is one JSON object, also after errors, signals and crashes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import redis

from tests.soak.faulty_worker import STARTS_FILE, UNGUARDED, with_fault
from tests.support.deployment import Deployment
from tests.support.processes import ROOT, Running
from tests.support.sounds import wav
from tests.support.waiting import wait_until
from tussis.shared.messages import envelope


def assert_json(worker: Running) -> list[dict[str, Any]]:
    """Return its lines. Each must be an object with the three fields that every event has."""
    events = []
    for line in [*worker.stdout, *worker.stderr]:
        assert line.startswith("{"), line
        events.append(json.loads(line))
        assert {"event", "level", "at"} <= events[-1].keys(), line
    return events


def test_a_child_s_death_a_broker_s_restart_and_a_stop_are_logged_as_json(deployment: Deployment) -> None:
    worker = deployment.worker(concurrency=1)
    worker.signal(signal.SIGUSR1)  # Celery prints the stacks of all threads
    wait_until(lambda: any("MainThread" in line for line in worker.stderr), 20, "the stacks")
    [child] = [process for process in psutil.Process(worker.pid).children() if "resource" not in process.name()]
    child.kill()
    wait_until(lambda: [event.get("event") for event in worker.events].count("child_ready") == 2, 60, "a replacement")
    deployment.servers.broker.kill()
    wait_until(lambda: any("onnection" in line for line in worker.stderr), 30, "Celery's word about the broker")
    deployment.servers.broker.start()
    deployment.enqueue("a.wav", wav(0.5))
    deployment.wait_drained(60)
    worker.signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    events = assert_json(worker)
    assert any(event["event"] == "library_log" and "Warm shutdown" in event["message"] for event in events)
    assert any(event["event"] == "worker_stopped" for event in events)


def test_a_cold_shutdown_is_logged_as_json(deployment: Deployment, tmp_path: Path) -> None:
    starts_file = tmp_path / "starts"
    deployment.environment[STARTS_FILE] = str(starts_file)
    deployment.enqueue("slow.wav", with_fault("slow-60", wav(0.5)))
    worker = deployment.worker(concurrency=1, faulty=True)
    wait_until(starts_file.exists, 30, "the recording to be begun")
    worker.signal(signal.SIGQUIT)
    worker.wait(60)
    events = assert_json(worker)
    assert any(event["event"] == "library_log" and "Cold shutdown" in event["message"] for event in events)


def test_an_unrecoverable_error_is_logged_as_json(deployment: Deployment, broker_url: str) -> None:
    """Celery logs it when kombu's own transport passes it a header of the wrong type."""
    job = deployment.enqueue("a.wav", wav(0.5))
    deployment.environment[UNGUARDED] = "yes"
    worker = deployment.worker(concurrency=1, faulty=True)
    entry = json.loads(envelope(job))
    entry["headers"]["stamped_headers"] = 5
    with redis.Redis.from_url(broker_url) as client:
        client.lpush("tussis.any", json.dumps(entry))
    assert worker.wait(60) != 0
    events = assert_json(worker)
    assert any("Unrecoverable error" in str(event.get("message")) for event in events)


def test_whatever_python_writes_to_standard_error_becomes_json() -> None:
    code = """
    import os, sys, threading, traceback, warnings
    from tussis.worker import logs
    from tussis.worker.standard_error import as_json_lines, say

    logs.configure("json", "info")
    with as_json_lines():
        warnings.warn("a warning\\nof two lines", UserWarning)
        print("a line", "and more", file=sys.stderr)
        sys.stderr.write("without an end")
        sys.stderr.flush()
        try:
            raise ValueError("printed")
        except ValueError:
            traceback.print_exc()
        say("from a handler\\nof signals", sys.__stdout__)
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
        class Late:
            def __del__(self):
                raise KeyError("late")
        Late()
        if os.fork() == 0:
            raise RuntimeError("in a child")
        os.wait()
    print("tussis: the last word", file=sys.stderr)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert run.stdout == ""
    *lines, last = run.stderr.splitlines()
    assert last == "tussis: the last word"
    events = [json.loads(line) for line in lines]
    told = [(event["event"], event.get("library"), event.get("message", event.get("reason"))) for event in events]
    assert any(library == "py" and "of two lines" in message for _, library, message in told)
    assert ("library_log", "stderr", "a line and more") in told
    assert ("library_log", "stderr", "without an end") in told
    assert ("library_log", "stderr", "ValueError: printed") in told
    assert ("library_log", "celery", "from a handler\nof signals") in told
    uncaught = [(event["reason"], event["exception"]) for event in events if event["event"] == "uncaught_exception"]
    assert [reason for reason, _ in uncaught] == [
        "ZeroDivisionError: division by zero",
        "KeyError: 'late'",
        "RuntimeError: in a child",
    ]
    assert all("Traceback" in trace for _, trace in uncaught)
