"""``docs/export.md`` lists the columns that ``tussis export`` writes."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from tests.support.tables import code, table
from tussis.shared.store.export_columns import COLUMNS, ColumnKind, ExportRows
from tussis.worker.cli.export import export
from tussis.worker.export.clips import INDEX_COLUMNS
from tussis.worker.export.labels import RAVEN_COLUMNS

DOCUMENT = Path(__file__).parents[3] / "docs" / "export.md"


def choices(option: str) -> list[str]:
    """The values of an option of ``tussis export``."""
    (kind,) = (parameter.type for parameter in export.params if option in parameter.opts)
    assert isinstance(kind, click.Choice)
    return list(kind.choices)


@pytest.mark.parametrize("what", list(ExportRows))
def test_the_columns(what: ExportRows) -> None:
    documented = [(code(name), kind, meaning) for name, kind, meaning in table(DOCUMENT, f"column of {what.value}")]

    assert documented == [(column.name, column.kind.value, column.meaning) for column in COLUMNS[what]]
    assert all(meaning for _, _, meaning in documented)


def test_the_columns_of_index_and_selection_table() -> None:
    assert tuple(code(row[0]) for row in table(DOCUMENT, "column of the index")) == INDEX_COLUMNS
    assert tuple(code(row[0]) for row in table(DOCUMENT, "column of Raven")) == RAVEN_COLUMNS


def test_the_formats_the_rows_and_the_types() -> None:
    assert [code(row[0]) for row in table(DOCUMENT, "`--format`")] == choices("--format")
    assert [code(row[0].removesuffix(" (default)")) for row in table(DOCUMENT, "`--rows`")] == choices("--rows")
    assert choices("--rows") == list(ExportRows)
    assert [row[0] for row in table(DOCUMENT, "type")] == [*ColumnKind, "no value"]


def test_a_name_is_one_column() -> None:
    for columns in COLUMNS.values():
        names = [column.name for column in columns]
        assert len(names) == len(set(names))
