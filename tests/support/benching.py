"""Benchmarks in tests: they run the command line, compare ratios, and repeat before a test fails."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import TUSSIS, Spawn

#: How often a measurement is made; another process can disturb one.
TRIES = 3


@dataclass(frozen=True)
class Bench:
    """Runs ``tussis bench`` or ``python -m benchmarks``.

    :func:`reach` compares the measurements with the values that a test requires.
    """

    spawn: Spawn
    command: tuple[str | Path, ...]
    folder: Path
    cache: Path
    """Shared by all tests of a session: a worker chooses once how it runs a model."""

    def report(self, *arguments: str | Path, file: Path | None = None, timeout_s: float = 600.0) -> dict[str, Any]:
        """Return the report as JSON. It is also written to ``file``; its table goes to pytest's standard output."""
        file = file or self.folder / "report.json"
        environment = {"TUSSIS_MODEL_CACHE_DIR": str(self.cache)}
        program, *words = self.command
        running = self.spawn(*words, *arguments, "--json", file, environment=environment, program=program)
        assert running.wait(timeout_s) == 0, running.text
        sys.stdout.write("\n".join([*running.stdout, ""]))
        read: dict[str, Any] = json.loads(file.read_text())
        return read

    def verdicts(self, *arguments: str | Path) -> dict[str, float]:
        """Return the measured value of each verdict of the report, by name."""
        return {verdict["what"]: verdict["measured"] for verdict in self.report(*arguments)["verdicts"]}


def has_processor_flag(*names: str) -> bool:
    """Return whether the processor has one of these features. The names are those of /proc/cpuinfo."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and re.search(rf"\b({'|'.join(names)})\b", cpuinfo.read_text()) is not None


def reach(measure: Callable[[], Mapping[str, float]], wanted: Mapping[str, float], *, at_most: bool = False) -> None:
    """Measure up to three times, until each number was reached once. Fail with the best value of each."""
    best: dict[str, float] = {}
    for _ in range(TRIES):
        for what, value in measure().items():
            best[what] = min(best.get(what, value), value) if at_most else max(best.get(what, value), value)
        missed = {
            what: best[what]
            for what, bound in wanted.items()
            if (best[what] > bound if at_most else best[what] < bound)
        }
        if not missed:
            return
    pytest.fail(f"measured {missed}, wanted {'at most' if at_most else 'at least'} {dict(wanted)}")


@pytest.fixture
def bench(spawn: Spawn, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """``tussis bench``, with the session's cache of models."""
    return Bench(spawn, (TUSSIS, "bench"), tmp_path, tmp_path_factory.getbasetemp() / "bench-cache")


@pytest.fixture
def benchmarks(bench: Bench) -> Bench:
    """``python -m benchmarks``, with the same cache."""
    return replace(bench, command=(sys.executable, "-m", "benchmarks"))
