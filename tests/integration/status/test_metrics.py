"""A worker's metrics: scraped from a real worker under load, and compared with the store."""

from __future__ import annotations

import os
import signal
import socket
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.soak.faulty_worker import with_fault
from tests.support.deployment import READY_S, Deployment
from tests.support.processes import ROOT, Running
from tests.support.sounds import wav
from tests.support.tables import code, table
from tests.support.waiting import wait_until
from tussis.shared.queues import Device

Labels = frozenset[tuple[str, str]]
Samples = dict[tuple[str, Labels], float]


def families(worker: Running) -> list[Metric]:
    """Return the metrics of one scrape."""
    served = worker.wait_for_event("metrics_served", READY_S)
    with urllib.request.urlopen(f"http://127.0.0.1:{served['port']}/metrics", timeout=60) as answer:
        return list(text_string_to_metric_families(answer.read().decode()))


def scrape(worker: Running) -> Samples:
    """Return every sample by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families(worker)
        for sample in family.samples
    }


def documented() -> set[tuple[str, str, frozenset[str]]]:
    """Return name, type and labels of the metrics in the document."""
    return {
        (code(row[0]), row[1], frozenset(code(label.strip()) for label in row[2].split(",") if label.strip()))
        for row in table(ROOT / "docs" / "metrics.md", "metric")
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """Return one sample; 0 when nothing was counted under these labels."""
    return samples.get((name, frozenset(labels.items())), 0.0)


def test_counters_agree_with_the_store_and_survive_a_killed_child(deployment: Deployment, tmp_path: Path) -> None:
    """Given good, broken, missing and crashing recordings, when all have ended, then every counter matches the rows."""
    for number in range(12):
        deployment.enqueue(f"{number}.wav", wav(1.0 + number / 10, seed=number))
    worker = deployment.worker("--metrics-port", "0", faulty=True)
    deployment.wait_drained(90)
    assert value(scrape(worker), "tussis_jobs_total", outcome="succeeded", error_class="") == 12
    for event in worker.events:
        if event.get("event") == "child_ready":
            os.kill(event["pid"], signal.SIGKILL)
    deployment.enqueue("broken.wav", b"RIFF\0\0\0\0WAVEfmt ")
    deployment.enqueue("text.wav", b"no sound at all")
    deployment.enqueue("missing.wav", None, etag="0" * 32)
    deployment.enqueue("poison.wav", with_fault("segfault", wav(0.5)))
    deployment.wait_drained(180)
    deployment.assert_accounted(failures=4)
    samples = scrape(worker)

    counts = deployment.store.counts()
    assert value(samples, "tussis_jobs_total", outcome="succeeded", error_class="") == counts.succeeded == 12
    failed = {
        dict(labels)["error_class"]: number
        for (name, labels), number in samples.items()
        if name == "tussis_jobs_total" and dict(labels)["outcome"] == "failed"
    }
    assert failed == dict(counts.failures)
    attempts = [row[0] for row in deployment.sql("SELECT count(*) FROM attempts")]
    assert value(samples, "tussis_attempts_total") >= max(attempts[0], 16)  # type: ignore[call-overload]
    analysed = sum(analysis.analyzed_s or 0.0 for analysis in deployment.analyses())
    assert value(samples, "tussis_audio_seconds_total") == pytest.approx(analysed)
    assert value(samples, "tussis_stage_seconds_count", stage="inference") >= 12
    assert value(samples, "tussis_queue_seconds_count") == value(samples, "tussis_attempts_total")
    served = {
        (
            f"{family.name}_total" if family.type == "counter" else family.name,
            family.type,
            frozenset(label for sample in family.samples for label in sample.labels) - {"le"},
        )
        for family in families(worker)
    }
    assert served == documented()
    stages = {dict(labels)["stage"] for name, labels in samples if name == "tussis_stage_seconds_count"}
    assert stages == {"fetch", "decode", "preprocess", "inference", "commit"}

    def of_living_ones_only() -> bool:
        """Whether the counters of all dead children are merged into one file, which happens soon after each death."""
        living = {str(pid) for pid in worker.children()} | {str(worker.pid), "0"}
        files = {path.stem.rpartition("_")[2] for path in tmp_path.glob("tussis-*/metrics/*.db")}
        return "0" in files and files <= living

    wait_until(of_living_ones_only, 30, "the files of dead children to be folded into one")


def test_gauges_tell_the_broker_s_state_and_the_worker_s(deployment: Deployment) -> None:
    """Given waiting messages for other workers, when a worker is scraped, then all queues and priorities are there."""
    for number, priority in enumerate((0, 5, 5, 9)):
        deployment.enqueue(f"{number}.wav", wav(0.3, seed=number), priority=priority, device=Device.GPU)
    worker = deployment.worker("--metrics-port", "0", concurrency=1)
    wait_until(lambda: value(scrape(worker), "tussis_worker_ready") == 1, 20, "the worker to call itself ready")
    samples = scrape(worker)

    depths = {
        (dict(labels)["queue"], dict(labels)["priority"]): number
        for (name, labels), number in samples.items()
        if name == "tussis_queue_depth"
    }
    assert len(depths) == 30
    assert {key: number for key, number in depths.items() if number} == {
        ("tussis.gpu", "0"): 1,
        ("tussis.gpu", "5"): 2,
        ("tussis.gpu", "9"): 1,
    }
    assert value(samples, "tussis_broker_up") == 1
    assert value(samples, "tussis_open_jobs") == 4
    assert value(samples, "tussis_in_flight") == value(samples, "tussis_deferred_jobs") == 0
    assert value(samples, "tussis_oldest_open_seconds") > 0
    assert value(samples, "tussis_worker_children") == value(samples, "tussis_worker_children_ready") == 1
    assert value(samples, "tussis_worker_children_holding") == 0

    deployment.servers.broker.kill()
    without = scrape(worker)
    assert value(without, "tussis_broker_up") == 0
    assert not [name for name, _ in without if name == "tussis_queue_depth"]


def test_a_port_that_is_taken_is_said_in_one_line(deployment: Deployment) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        worker = deployment.start_worker("--metrics-port", str(port), concurrency=1)
        assert worker.wait(READY_S) == 1
    assert [line for line in worker.stderr if line.startswith("tussis: ")] == [
        f"tussis: cannot serve metrics on 0.0.0.0:{port} (Address already in use): "
        "set TUSSIS_METRICS_PORT to another port"
    ]
