"""What a child leaves behind when it dies."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

from tussis.shared.queues import Device
from tussis.shared.settings import load_settings
from tussis.worker.parent.keeper import Keeper
from tussis.worker.pipeline.child import Start
from tussis.worker.status.rundir import RunDir


def test_a_child_that_dies_while_it_waits_holds_nothing_up(tmp_path: Path) -> None:
    """Given a replacement that waits for the database, when it dies before it has reported, then its word goes too."""
    run_dir = RunDir(tmp_path / "run")
    run_dir.create()
    settings = load_settings(broker_url="redis://127.0.0.1:1/0")
    keeper = Keeper(Start(settings, Device.CPU, "cpu@here", tmp_path / "model.onnx", 1, run_dir))
    dead = subprocess.Popen(["true"])
    dead.wait()
    alive = SimpleNamespace(pid=dead.pid + 1, exitcode=None)
    worker = SimpleNamespace(pool=SimpleNamespace(_pool=SimpleNamespace(_pool=[alive])))
    for pid in (dead.pid, alive.pid):
        (run_dir.path / f"hold-{pid}").write_text("the database is away")
    run_dir.hold("the device process is away")

    keeper._watch_children(worker)

    assert run_dir.holds().keys() == {alive.pid, os.getpid()}
