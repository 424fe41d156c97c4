"""Measurements: a table for people, JSON for programs, and what counts as reached."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tussis.worker.bench.measurements import (
    Column,
    Hardware,
    Measurements,
    TargetCheck,
    as_json,
    hardware,
    plain,
    write_json,
)
from tussis.worker.detector.arithmetic import processor

_HARDWARE = Hardware("AMD EPYC (avx2)", 61.2, 2, 23.5, "3.11.7", "2.11.0", "", "2026-11-22T20:35:28+00:00")


def measurements(*verdicts: TargetCheck) -> Measurements:
    return Measurements(
        title="Speed",
        command="tussis bench x",
        columns=(Column("recordings"), Column("wall", "s", 3), Column("count")),
        rows=(("2 s", 1.23456, 1_000_000), ("mix", None, 3)),
        hardware=_HARDWARE,
        notes=("as it is",),
        verdicts=verdicts,
    )


def test_plain_text_is_an_aligned_table_with_everything_around_it() -> None:
    assert plain(measurements(TargetCheck("of the floor", 0.93, 0.9))).splitlines() == [
        "Speed",
        "$ tussis bench x",
        "AMD EPYC (avx2), 2 cores of 61 Gflop/s, 24 GiB;"
        " Python 3.11.7, torch 2.11.0, onnxruntime -; 2026-11-22T20:35:28+00:00",
        "",
        "| recordings | wall (s) |     count |",
        "| ---------- | -------: | --------: |",
        "| 2 s        |    1.235 | 1,000,000 |",
        "| mix        |        - |         3 |",
        "",
        "- as it is",
        "* of the floor: 0.93, target at least 0.9: reached",
    ]


@pytest.mark.parametrize(
    ("verdict", "reached"),
    [
        (TargetCheck("a", 0.9, 0.9), True),
        (TargetCheck("a", 0.89, 0.9), False),
        (TargetCheck("a", 8.1, 8.0, at_most=True), False),
        (TargetCheck("a", 7.9, 8.0, at_most=True), True),
        (TargetCheck("a", 0.95, 0.9, void="the floor varied by 12 %"), None),
    ],
)
def test_a_verdict_is_reached_missed_or_void(verdict: TargetCheck, reached: bool | None) -> None:
    assert verdict.reached is reached


def test_json_holds_the_numbers_unrounded(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "speed.json"

    write_json(measurements(TargetCheck("of the floor", 0.93, 0.9)), file)

    read = json.loads(file.read_text())
    assert read["schema"] == 1
    assert read["rows"] == [["2 s", 1.23456, 1_000_000], ["mix", None, 3]]
    assert read["columns"][1] == {"name": "wall", "unit": "s", "digits": 3}
    assert read["hardware"]["cpu"] == "AMD EPYC (avx2)"
    assert read["verdicts"] == [
        {"what": "of the floor", "measured": 0.93, "target": 0.9, "at_most": False, "void": "", "reached": True}
    ]
    assert read == as_json(measurements(TargetCheck("of the floor", 0.93, 0.9)))


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="2 cells under 1 columns"):
        Measurements("t", "c", (Column("a"),), ((1, 2),), _HARDWARE)


def test_this_machine_is_described() -> None:
    here = hardware()

    assert here.cpu == processor()
    assert 0.05 < here.gflops < 1000
    assert f"{here.gflops:.0f} Gflop/s" in here.line()
    assert here.cores >= 1
    assert here.memory_gib > 0
    assert here.torch.startswith("2.")
    assert str(here.cores) in here.line()
