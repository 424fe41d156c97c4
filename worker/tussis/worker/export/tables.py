"""Writes rows as CSV or as JSON lines. Both need memory for one batch of rows."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, BinaryIO, Final

from tussis.shared.store.export_columns import ColumnKind, ExportColumn

Batches = Iterable[Sequence[Sequence[Any]]]
"""Batches of rows, with a value for each column."""

#: A spreadsheet takes a cell with one of these first characters for a formula, or ignores the character and reads the
#: next one. https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
#: Without it, Excel reads a CSV file in the encoding of the system.
_BYTE_ORDER_MARK: Final = "\ufeff"

_Converter = Callable[[Any], Any]


def write_csv(stream: BinaryIO, columns: Sequence[ExportColumn], batches: Batches, *, excel: bool) -> int:
    """Write a line of names and a line for each row, in UTF-8; returns the number of rows.

    A value of None is an empty cell. Numbers have all their digits. ``excel``: the file begins with a byte order mark,
    and an apostrophe precedes each text that a spreadsheet would take for a formula.
    """
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
    try:
        if excel:
            text.write(_BYTE_ORDER_MARK)
        writer = csv.writer(text, lineterminator="\r\n" if excel else "\n")
        writer.writerow([column.name for column in columns])
        converters = _at(
            columns, _CELLS | ({ColumnKind.TEXT: _no_formula, ColumnKind.TEXTS: _no_formula_texts} if excel else {})
        )
        count = 0
        for batch in batches:
            writer.writerows(batch if not converters else [_converted(row, converters) for row in batch])
            count += len(batch)
        text.flush()
    finally:
        text.detach()
    return count


def write_json_lines(stream: BinaryIO, columns: Sequence[ExportColumn], batches: Batches) -> int:
    """Write a JSON object a line for each row; returns the number of rows. An infinite logit is null."""
    names = [column.name for column in columns]
    converters = _at(columns, {ColumnKind.REAL: _finite})
    encode = json.JSONEncoder(default=iso).encode
    count = 0
    for batch in batches:
        lines = [encode(dict(zip(names, _converted(row, converters), strict=True))) for row in batch]
        stream.write(("\n".join(lines) + "\n").encode())
        count += len(lines)
    return count


def iso(moment: datetime) -> str:
    """A time in UTC as ISO 8601 with microseconds, so that all times have the same length."""
    return moment.isoformat(timespec="microseconds")


def json_text(value: object) -> str:
    """A value of :attr:`Kind.JSON` as text."""
    return json.dumps(value, ensure_ascii=False)


def _at(columns: Sequence[ExportColumn], converters: dict[ColumnKind, _Converter]) -> list[tuple[int, _Converter]]:
    """The positions of the columns whose values need a converter."""
    return [(index, converters[column.kind]) for index, column in enumerate(columns) if column.kind in converters]


def _converted(row: Sequence[Any], converters: list[tuple[int, _Converter]]) -> list[Any]:
    cells = list(row)
    for index, convert in converters:
        if cells[index] is not None:
            cells[index] = convert(cells[index])
    return cells


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _no_formula(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _no_formula_texts(texts: Sequence[str]) -> str:
    return _no_formula(" ".join(texts))


#: The values of other kinds are written by the module ``csv``, with the repr of a float.
_CELLS: Final[dict[ColumnKind, _Converter]] = {
    ColumnKind.BOOLEAN: _boolean,
    ColumnKind.TIME: iso,
    ColumnKind.JSON: json_text,
    ColumnKind.TEXTS: " ".join,
}
