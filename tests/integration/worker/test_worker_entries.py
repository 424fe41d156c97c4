"""What workers say of themselves in the broker."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tussis.shared.broker import connect
from tussis.shared.queues import WORKERS_KEY, Device
from tussis.shared.settings import load_settings
from tussis.worker.child import Start
from tussis.worker.keeper import Keeper
from tussis.worker.rundir import RunDir


def test_entries_of_workers_that_were_killed_do_not_pile_up(broker_url: str, tmp_path: Path) -> None:
    client = connect(broker_url)
    for name, age_s in (("killed yesterday", 86_400), ("silent for a while", 600), ("speaks", 1)):
        client.hset(WORKERS_KEY, name, json.dumps({"seen_at": time.time() - age_s}))
    order = Start(
        load_settings(broker_url=broker_url), Device.CPU, "cpu@here", tmp_path / "model.onnx", 1, RunDir(tmp_path)
    )

    Keeper(order)._forget_silent_workers()

    assert set(client.hkeys(WORKERS_KEY)) == {b"silent for a while", b"speaks"}
    client.close()
