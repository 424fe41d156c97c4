"""``docs/glossary.md``: each term stands once, and the names that it gives exist."""

from __future__ import annotations

import importlib
import re
from typing import Final

import pytest

from tests.support.processes import ROOT
from tussis.shared.settings import Settings
from tussis.shared.states import AnalysisState, AttemptOutcome
from tussis.shared.store.schema import metadata
from tussis.shared.store.views import VIEWS

DOCS: Final = ROOT / "docs"
ROWS: Final = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (DOCS / "glossary.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith(("| term |", "| --- |"))
]
#: What the glossary names: the word before the name, if any, and the name.
NAMES: Final = sorted({found for _, _, names in ROWS for found in re.findall(r"(?:\b([a-z]+) )?`([^`]+)`", names)})
EVENTS: Final = (DOCS / "events.md").read_text(encoding="utf-8")
METRICS: Final = (DOCS / "metrics.md").read_text(encoding="utf-8")
WIRE_FORMAT: Final = (DOCS / "wire-format.md").read_text(encoding="utf-8")


def exists(kind: str, name: str) -> bool:
    """Whether the code, the schema or the reference has it. ``kind`` is the word before the name."""
    match kind:
        case "table":
            return name in metadata.tables
        case "view":
            return name in VIEWS
        case "state":
            return name in list(AnalysisState)
        case "outcome":
            return name in list(AttemptOutcome)
        case "event":
            return f"\n| `{name}` |" in EVENTS
        case "label":
            return f"`{name}`" in METRICS
        case "extra":
            return f"\n{name} = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    if name.startswith("TUSSIS_"):
        return name.removeprefix("TUSSIS_").lower() in Settings.model_fields
    if name.startswith("tussis_"):
        return f"\n| `{name}` |" in METRICS
    if name.startswith("tussis "):
        return True  # test_readme.py holds the commands of all documents to the code
    if re.fullmatch(r"tussis(\.\w+){2,}", name):
        return found_in_code(name)
    table, _, column = name.partition(".")
    if table == "tussis":
        return f"`{name}`" in WIRE_FORMAT
    return table in metadata.tables and column in metadata.tables[table].columns


def found_in_code(path: str) -> bool:
    """Whether there is such a module, or such a name in a module."""
    try:
        importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return hasattr(importlib.import_module(module), name)
    return True


def test_each_term_is_defined_once_in_full_sentences() -> None:
    terms = [term for term, _, _ in ROWS]

    assert len(terms) > 50
    assert len(set(terms)) == len(terms)
    for term, definition, names in ROWS:
        assert definition.endswith("."), term
        assert names, term


@pytest.mark.parametrize(("kind", "name"), NAMES, ids=lambda part: part.replace(" ", "-"))
def test_the_names_exist(kind: str, name: str) -> None:
    assert exists(kind, name)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("table", "results"),
        ("view", "recent"),
        ("event", "job_lost"),
        ("outcome", "lost"),
        ("", "analyses.cough"),
        ("", "TUSSIS_NOTHING"),
        ("", "tussis_nothing_total"),
        ("", "tussis.nothing"),
        ("", "tussis.shared.ledger.Book"),
    ],
)
def test_the_check_notices_what_does_not_exist(kind: str, name: str) -> None:
    assert not exists(kind, name)
