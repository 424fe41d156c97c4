"""``docs/guarantees.md`` says what the code does, and every statement of it names a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

from tests.faults.conftest import SCENARIOS
from tussis.shared.queues import Device
from tussis.shared.settings import Settings, load_settings
from tussis.shared.states import TRANSITIONS, AttemptOutcome
from tussis.worker.parent.app import build_app

ROOT: Final = Path(__file__).parents[3]
PAGE: Final = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def table(heading: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    lines = [line for line in section(heading).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def bullets(heading: str) -> list[str]:
    """The items of a section's list, each on one line."""
    flat = re.sub(r"\n  +", " ", section(heading))
    return [line for line in flat.splitlines() if line.startswith("- ")]


def names(text: str) -> list[str]:
    return re.findall(r"`(test_\w+)`", text)


def existing() -> dict[str, set[int]]:
    """Every test's name -> the scenarios that it is marked with."""
    found: dict[str, set[int]] = {}
    for file in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.setdefault(node.name, set()).update(_scenarios(node))
    return found


def _scenarios(node: ast.FunctionDef) -> set[int]:
    return {
        argument.value
        for mark in node.decorator_list
        if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Attribute) and mark.func.attr == "scenario"
        for argument in mark.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, int)
    }


def test_every_test_that_is_named_exists() -> None:
    assert len(set(names(PAGE))) > 60
    assert sorted(set(names(PAGE)) - set(existing())) == []


STATEMENTS: Final = [
    *(" | ".join(row) for heading in ("How it is kept", "Faults") for row in table(heading)),
    *(line for heading in ("What is not promised", "Operations", "Celery's options") for line in bullets(heading)),
]


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement[:40])
def test_every_statement_names_its_test(statement: str) -> None:
    assert names(statement)


def test_the_faults_are_the_scenarios() -> None:
    marked = existing()
    rows = table("Faults")
    assert [int(row[0]) for row in rows] == list(SCENARIOS) == sorted(SCENARIOS)
    for number, *_, tests in rows:
        assert set(names(tests)) <= {name for name, scenarios in marked.items() if int(number) in scenarios}


def test_the_states_are_the_codes() -> None:
    moves = {
        ("none" if before is None else before.value, after.value)
        for before, afters in TRANSITIONS.items()
        for after in afters
    }
    rows = table("States")
    assert {(row[0].strip("`()"), row[1].strip("`")) for row in rows} == moves
    assert len(rows) == len(moves)
    drawn = re.findall(r"^    (\S+) --> (\w+)", section("States"), re.MULTILINE)
    assert {(before.replace("[*]", "none"), after) for before, after in drawn} == moves
    for outcome in AttemptOutcome:
        assert f"`{outcome.value}`" in section("States")


def test_the_settings_that_are_named_exist() -> None:
    named = set(re.findall(r"`TUSSIS_(\w+)`", PAGE))
    assert len(named) >= 9
    assert named <= {name.upper() for name in Settings.model_fields}


def test_the_options_are_the_codes() -> None:
    app = build_app(load_settings(broker_url="redis://localhost"), Device.CPU)
    transport = app.conf.broker_transport_options
    stated = {name.strip("`"): ast.literal_eval(value.strip("`")) for name, value, _ in table("Celery's options")}
    assert stated == {name: transport[name] if name in transport else app.conf[name] for name in stated}
    assert set(transport) <= set(stated)
