"""``docs/cough-events.md`` has the parameters of the rule, the fields of an event and the SQL that the code has."""

from __future__ import annotations

import dataclasses
import re
from typing import Final

from benchmarks.events.rules import MINIMUM, RULES
from tests.support.processes import ROOT
from tussis.shared.events import BIN_S, BINS_A_SEGMENT, EVENT_THRESHOLD, CoughEvent
from tussis.shared.store.event_sql import EVENTS

TEXT: Final = (ROOT / "docs" / "cough-events.md").read_text(encoding="utf-8")
GLOSSARY: Final = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    return TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def first_cells(text: str) -> list[str]:
    return [cell.strip("*` ") for cell in re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)]


def test_the_parameters() -> None:
    rows = re.findall(r"\| [^|]+ \| ([\d.]+)[^|]* \| `(\w+)` \|", section("The rule"))

    assert {name: float(value) for value, name in rows} == {
        "BIN_S": BIN_S,
        "BINS_A_SEGMENT": BINS_A_SEGMENT,
        "EVENT_THRESHOLD": EVENT_THRESHOLD,
    }
    assert f"**above {EVENT_THRESHOLD:g}**" in section("The rule")
    assert f"| **{MINIMUM.name}** | **above {EVENT_THRESHOLD:g}** |" in section("How the rule was chosen")
    assert f"consecutive bins with a probability above {EVENT_THRESHOLD:g}" in GLOSSARY


def test_the_fields_of_an_event() -> None:
    assert first_cells(section("What a cough event is"))[2:] == [field.name for field in dataclasses.fields(CoughEvent)]


def test_each_measured_rule_has_a_row() -> None:
    names = first_cells(section("How the rule was chosen"))

    assert [rule.name for rule in RULES if not any(name.startswith(rule.name) for name in names)] == []


def test_the_query_is_that_of_the_store() -> None:
    query = section("Another threshold").split("```sql\n")[1].split(";\n```")[0]

    assert query == EVENTS.strip() % {"analysis_id": 1, "threshold": 0.6}
