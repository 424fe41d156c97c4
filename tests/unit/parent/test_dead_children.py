"""What a child leaves behind when it dies."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

from tussis.worker.parent.children import watch_children
from tussis.worker.status.rundir import RunDir


def test_a_child_that_dies_while_it_waits_holds_nothing_up(tmp_path: Path) -> None:
    """Given a replacement that waits for the database, when it dies before it has reported, then its word goes too."""
    run_dir = RunDir(tmp_path / "run")
    run_dir.create()
    folded: list[int] = []
    dead = subprocess.Popen(["true"])
    dead.wait()
    alive = SimpleNamespace(pid=dead.pid + 1, exitcode=None)
    worker = SimpleNamespace(pool=SimpleNamespace(_pool=SimpleNamespace(_pool=[alive])))
    for pid in (dead.pid, alive.pid):
        (run_dir.path / f"hold-{pid}").write_text("the database is away")
    run_dir.hold("the device process is not available")

    watch_children(worker, run_dir, folded.append)

    assert folded == [dead.pid]
    assert run_dir.holds().keys() == {alive.pid, os.getpid()}
