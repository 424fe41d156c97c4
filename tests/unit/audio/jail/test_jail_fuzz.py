"""Mutated files and datagrams. ``python -m benchmarks fuzz`` runs more of them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fuzz import fuzz_files, fuzz_protocol, mutated, seeds
from tests.support.processes import ROOT
from tussis.worker.audio.jail.protocol import ERRORS

#: A hundred seconds of one core. ``make fuzz`` takes as many as it is told.
FILES = 20_000
CONVERSATIONS = 5_000
#: Inputs of each target that is guided by coverage.
GUIDED = 5_000


def test_a_seed_gives_the_same_files(pack: Path) -> None:
    originals = seeds(pack / "formats")
    assert list(mutated(3, originals, 50)) == list(mutated(3, originals, 50))
    assert list(mutated(3, originals, 50)) != list(mutated(4, originals, 50))


@pytest.mark.parametrize("folder", ["formats", "adversarial"])
def test_no_mutated_file_crashes_hangs_or_escapes(pack: Path, folder: str) -> None:
    done = fuzz_files(pack / folder, FILES // 2, seed=16)
    assert [what for what, _ in done.findings] == []
    # The mutations reach the decoders.
    assert done.outcomes["decoded"] > FILES // 20
    assert len(done.outcomes) > 4


def test_no_mutated_datagram_is_more_than_a_violation() -> None:
    outcomes = fuzz_protocol(CONVERSATIONS, seed=16)
    assert outcomes["taken"] > 100
    assert outcomes["violation"] > 1_000
    assert set(outcomes) <= {"taken", "violation"} | set(ERRORS)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine")
@pytest.mark.parametrize("target", ["readers", "protocol"])
def test_coverage_leads_to_no_foreign_error(pack: Path, tmp_path: Path, target: str) -> None:
    words = [sys.executable, "-m", "benchmarks.guided", target, str(GUIDED), "16"]
    folder = [str(pack / "formats")] if target == "readers" else []
    done = subprocess.run([*words, *folder], capture_output=True, text=True, timeout=400, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"Done {GUIDED} runs" in done.stderr
