"""docs/operate.md and the code say the same: settings, events. Its table of metrics is held to a scrape elsewhere."""

from __future__ import annotations

import re
from typing import Any

from pydantic_core import PydanticUndefined

from tests.support.processes import ROOT
from tests.support.tables import code, table
from tussis.shared.settings import Settings

DOCUMENT = ROOT / "docs" / "operate.md"


def shown(field: Any) -> str:
    """A setting's default as the document writes it."""
    if field.default is PydanticUndefined or field.default is None:
        return "unset"
    return f"`{field.default:g}`" if isinstance(field.default, float) else f"`{field.default}`"


def test_the_settings_are_all_there_with_their_defaults() -> None:
    expected = [
        [f"`TUSSIS_{name.upper()}`", shown(field), field.description] for name, field in Settings.model_fields.items()
    ]
    assert table(DOCUMENT, "setting") == expected


def test_queries_name_metrics_that_exist() -> None:
    named = {code(row[0]) for kind in ("metric", "device metric") for row in table(DOCUMENT, kind)}
    for found in re.findall(r"\btussis_[a-z_]+", DOCUMENT.read_text()):
        assert re.sub(r"_(sum|count|bucket)$", "", found) in named, found


def test_the_events_are_all_there() -> None:
    logged = {"library_log"}
    for root in ("worker", "shared", "producer"):
        for file in (ROOT / root).rglob("*.py"):
            logged |= set(re.findall(r"_log\.\w+\(\s*\"(\w+)\"", file.read_text()))
    assert {code(row[0]) for row in table(DOCUMENT, "event")} == logged
