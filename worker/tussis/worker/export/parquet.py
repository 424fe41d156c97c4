"""Writes rows as Parquet, one row group after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from tussis.shared.store.export_columns import ColumnKind, ExportColumn
from tussis.worker.export.tables import Batches, json_text

#: A row group ends after this number of rows or bytes. Larger ones are read faster, and need more memory here.
_GROUP_ROWS: Final = 50_000
_GROUP_BYTES: Final = 32 * 2**20

_TYPES: Final = {
    ColumnKind.TEXT: pa.string(),
    ColumnKind.INTEGER: pa.int64(),
    ColumnKind.REAL: pa.float64(),
    ColumnKind.BOOLEAN: pa.bool_(),
    ColumnKind.TIME: pa.timestamp("us", tz="UTC"),
    ColumnKind.JSON: pa.string(),
    ColumnKind.TEXTS: pa.list_(pa.string()),
}


def write_parquet(stream: BinaryIO, columns: Sequence[ExportColumn], batches: Batches) -> int:
    """Write the rows, and an empty table if there are none; returns their number. The stream need not seek."""
    schema = pa.schema([pa.field(column.name, _TYPES[column.kind]) for column in columns])
    count = 0
    group: list[Any] = []
    with pq.ParquetWriter(pa.PythonFile(stream, mode="w"), schema) as writer:
        for batch in batches:
            group.append(_record_batch(batch, columns, schema))
            count += len(batch)
            if sum(part.num_rows for part in group) >= _GROUP_ROWS or sum(map(_size, group)) >= _GROUP_BYTES:
                _write_group(writer, group)
        if group:
            _write_group(writer, group)
    return count


def _record_batch(batch: Sequence[Sequence[Any]], columns: Sequence[ExportColumn], schema: Any) -> Any:
    arrays = []
    for column, values in zip(columns, zip(*batch, strict=True), strict=True):
        if column.kind is ColumnKind.JSON:
            values = tuple(None if value is None else json_text(value) for value in values)
        arrays.append(pa.array(values, _TYPES[column.kind]))
    return pa.record_batch(arrays, schema=schema)


def _size(part: Any) -> int:
    return int(part.nbytes)


def _write_group(writer: Any, group: list[Any]) -> None:
    table = pa.Table.from_batches(group)
    writer.write_table(table, row_group_size=table.num_rows)
    group.clear()
