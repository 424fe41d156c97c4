"""The soak itself: the totals of a short soak match, and its exit status is 0."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.processes import Spawn
from tests.support.servers import server_folder


@pytest.mark.timeout(500)
def test_a_short_soak_adds_up(spawn: Spawn, tiny_model: Path) -> None:
    with server_folder() as folder:
        run = spawn(
            *("-m", "tests.soak", "--minutes", "0.5", "--seed", "3", "--model", tiny_model, "--data", folder / "soak"),
            program=sys.executable,
        )
        assert run.wait(450) == 0, run.text
    assert any("duplicates 0, open 0" in line for line in run.stdout)
    assert any(line.startswith("recovery after ") for line in run.stdout)
    assert not any(line.startswith("PROBLEM") for line in run.stdout)
