"""``docs/performance.md`` names every measurement, and every field of its JSON."""

from __future__ import annotations

import re
from dataclasses import fields

from benchmarks.__main__ import benchmarks
from tests.support.processes import ROOT
from tussis.worker.bench.measurements import Column, Hardware, Measurements, TargetCheck, as_json
from tussis.worker.cli.bench import bench

#: Of the developers' commands, the one that measures nothing.
MEASUREMENTS = set(benchmarks.commands) - {"fuzz"}
TEXT = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")


def test_every_measurement_has_its_line() -> None:
    told = {
        program: set(re.findall(rf"^\| `{program} (\w+)` \|", TEXT, re.MULTILINE))
        for program in ("tussis bench", "python -m benchmarks")
    }

    assert told == {"tussis bench": set(bench.commands), "python -m benchmarks": MEASUREMENTS}


def test_make_bench_runs_every_measurement() -> None:
    recipe = re.search(r"^bench:.*?\n\n", (ROOT / "Makefile").read_text(), re.MULTILINE | re.DOTALL)
    assert recipe
    # Two are tests, marked slow: they take longest, and hold targets that no short measurement shows. One needs a GPU.
    run = recipe[0] + " queue memory device"

    assert {name for name in {*bench.commands, *MEASUREMENTS} if not re.search(rf"\b{name}\b", run)} == set()


def test_every_field_of_the_json_is_in_the_table() -> None:
    table = TEXT.partition("## The JSON of a measurement")[2]
    written = set(re.findall(r"`(\w+)`", table))
    here = Hardware("cpu", 50.0, 2, 4.0, "3.11", "2.11", "1.2", "2026-11-22T00:00:00+00:00")
    verdict = TargetCheck("a", 1.0, 1.0)

    document = as_json(Measurements("title", "command", (Column("a"),), ((1,),), here, verdicts=(verdict,)))

    named = set(document)
    for record in (Column, Hardware):
        named |= {field.name for field in fields(record)}
    for entry in document["verdicts"]:  # type: ignore[attr-defined]  # a list, in a dict of plain values
        named |= set(entry)
    assert named == written
