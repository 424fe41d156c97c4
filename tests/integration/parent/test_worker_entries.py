"""The entries of workers in the broker."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.support.deployment import Deployment
from tests.support.waiting import wait_until
from tussis.shared.broker import connect
from tussis.shared.queues import WORKERS_KEY, Device
from tussis.shared.settings import load_settings
from tussis.worker.detector.manifest import read_manifest
from tussis.worker.parent.housekeeper import Housekeeper
from tussis.worker.pipeline.child import ChildSetup
from tussis.worker.status.rundir import RunDir


def test_entries_of_workers_that_were_killed_do_not_pile_up(broker_url: str, tmp_path: Path) -> None:
    client = connect(broker_url)
    for name, age_s in (("killed yesterday", 86_400), ("silent for a while", 600), ("speaks", 1)):
        client.hset(WORKERS_KEY, name, json.dumps({"seen_at": time.time() - age_s}))
    setup = ChildSetup(
        load_settings(broker_url=broker_url), Device.CPU, "cpu@here", tmp_path / "model.onnx", 1, RunDir(tmp_path)
    )

    Housekeeper(setup)._registry.forget_silent_workers()

    assert set(client.hkeys(WORKERS_KEY)) == {b"silent for a while", b"speaks"}
    client.close()


def test_a_worker_s_entry_names_its_model_as_results_do(deployment: Deployment) -> None:
    deployment.worker(concurrency=1)
    label = read_manifest(Path(deployment.environment["TUSSIS_MODEL"])).label

    def told() -> list[str]:
        asked = deployment.tussis("status", "--json")
        assert asked.wait(30) == 0
        return [worker["model"] for worker in json.loads("".join(asked.stdout))["workers"] if worker["ready"]]

    assert wait_until(told, 30, "a worker that is ready") == [label]
