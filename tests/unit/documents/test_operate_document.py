"""The operator's reference and the code say the same: settings, events, errors, S3's answers.

docs/settings.md, docs/metrics.md, docs/events.md, docs/errors.md. The tables of metrics are held to a scrape elsewhere,
and the tables of Celery's variables and of SQLSTATEs by the tests of their modules.
"""

from __future__ import annotations

import re
from typing import Any, get_args

from pydantic_core import PydanticUndefined

from tests.support.processes import ROOT
from tests.support.tables import code, table
from tussis.shared import errors
from tussis.shared.s3_refusals import CODES, STATUSES
from tussis.shared.settings import Settings
from tussis.shared.store.rights import Role
from tussis.worker.outcome import Outcome
from tussis.worker.status.metrics import SHADOW_OUTCOME, outcome_name

DOCS = ROOT / "docs"
METRICS = DOCS / "metrics.md"
ERRORS = DOCS / "errors.md"
#: The base class decides what happens to a recording.
FATES = {
    errors.CallerError: "caller",
    errors.TransientError: "transient",
    errors.PermanentError: "permanent",
    errors.OperatorError: "operator",
}


def shown(field: Any) -> str:
    """A setting's default as the document writes it."""
    if field.default is PydanticUndefined or field.default is None:
        return "unset"
    return f"`{field.default:g}`" if isinstance(field.default, float) else f"`{field.default}`"


def codes(cell: str) -> list[str]:
    """The words in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def test_the_settings_are_all_there_with_their_defaults() -> None:
    expected = [
        [f"`TUSSIS_{name.upper()}`", shown(field), field.description] for name, field in Settings.model_fields.items()
    ]
    assert table(DOCS / "settings.md", "setting") == expected


def test_queries_name_metrics_that_exist() -> None:
    named = {
        code(row[0])
        for kind in ("metric", "device metric", "drift metric", "notifier metric", "gateway metric")
        for row in table(METRICS, kind)
    }
    for document in (METRICS, DOCS / "operate.md"):
        found = set(re.findall(r"\btussis_[a-z_]+", document.read_text())) - set(Role)
        assert found
        for name in found:
            assert re.sub(r"_(sum|count|bucket)$", "", name) in named, name


def test_the_outcomes_are_all_there() -> None:
    expected = {outcome_name(kind.__new__(kind)) for kind in get_args(Outcome)} | {"dead_letter", SHADOW_OUTCOME}
    assert {code(row[0]) for row in table(METRICS, "outcome")} == expected


def test_the_events_are_all_there() -> None:
    logged = {"library_log"}
    for root in ("worker", "shared", "producer"):
        for file in (ROOT / root).rglob("*.py"):
            logged |= set(re.findall(r"_log\.\w+\(\s*\"(\w+)\"", file.read_text()))
    assert {code(row[0]) for row in table(DOCS / "events.md", "event")} == logged


def test_the_error_classes_are_all_there_with_their_fates() -> None:
    expected = {
        kind.error_class: FATES[base] + (", reopens" if kind.reopens else "")
        for kind in vars(errors).values()
        if isinstance(kind, type)
        for base in FATES
        if issubclass(kind, base) and kind is not base
    }
    rows = table(ERRORS, "error class")
    assert {code(row[0]): code(row[1]) for row in rows} == expected
    assert len(rows) == len(expected)


def test_s3_s_answers_are_the_code_s() -> None:
    rows = table(ERRORS, "class of answer")
    assert {name: code(row[0]) for row in rows for name in codes(row[1])} == {
        name: kind.error_class for name, kind in CODES.items()
    }
    statuses = {int(status): code(row[0]) for row in rows for status in re.findall(r"\b\d{3}\b", row[2])}
    assert statuses == {status: kind.error_class for status, kind in STATUSES.items()}
