"""The limit of a test's time holds in every test: no test keeps the others waiting for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT

_WAITS = {
    "after_a_stage": """
    with Stages().stage("decode", 30.0):  # sets and clears the alarm of the process
        pass
    waiting.wait(100)
""",
    "in_its_cleanup": """
    try:
        waiting.wait(100)
    finally:
        waiting.wait(100)
""",
}


@pytest.mark.parametrize("where", _WAITS)
def test_a_test_that_hangs_ends(where: str, tmp_path: Path) -> None:
    file = tmp_path / "test_hangs.py"
    file.write_text(
        "import threading\n\nfrom tussis.worker.pipeline.watchdog import Stages\n\n\n"
        f"def test_hangs():\n    waiting = threading.Event()\n{_WAITS[where]}"
    )

    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, "-o", "timeout=2", file],
        capture_output=True,
        text=True,
        timeout=90,
    )

    assert ended.returncode == 1
    assert "Timeout" in ended.stdout + ended.stderr
    assert "waiting.wait(100)" in ended.stdout + ended.stderr
