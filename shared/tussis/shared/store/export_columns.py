"""The columns of an export. They are a contract: ``docs/export.md`` lists them, and a test compares the two."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Double,
    Integer,
    Text,
    Uuid,
    func,
    literal_column,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from tussis.shared.store import upstream_facts
from tussis.shared.store.software import NAMES
from tussis.shared.store.tables.analyses import analyses
from tussis.shared.store.tables.answers import events, segments
from tussis.shared.store.tables.models import models, software
from tussis.shared.store.tables.recordings import recordings


class ExportRows(StrEnum):
    """What one row of an export stands for."""

    RESULTS = "results"
    """An analysis, in any state."""
    SEGMENTS = "segments"
    """A segment of a succeeded analysis."""
    EVENTS = "events"
    """A cough event of a succeeded analysis."""


class ColumnKind(StrEnum):
    """The type of the values of a column. Every value can also be None."""

    TEXT = "text"
    INTEGER = "integer"
    REAL = "real"
    """A float64. Only a logit can be infinite; none is NaN."""
    BOOLEAN = "boolean"
    TIME = "time"
    """A ``datetime`` in UTC, to the microsecond."""
    JSON = "JSON"
    """A dictionary."""
    TEXTS = "list of texts"


@dataclass(frozen=True)
class ExportColumn:
    """A column of an export."""

    name: str
    kind: ColumnKind
    meaning: str
    expression: ColumnElement[Any]


_KINDS: Final = {
    Text: ColumnKind.TEXT,
    Uuid: ColumnKind.TEXT,
    Integer: ColumnKind.INTEGER,
    BigInteger: ColumnKind.INTEGER,
    Double: ColumnKind.REAL,
    Boolean: ColumnKind.BOOLEAN,
    TIMESTAMP: ColumnKind.TIME,
    JSONB: ColumnKind.JSON,
}


def _of(column: Column[Any], name: str | None = None) -> ExportColumn:
    """A column of a table, with its type and its comment."""
    kind = ColumnKind.TEXTS if isinstance(column.type, ARRAY) else _KINDS[type(column.type)]
    return ExportColumn(name or column.name, kind, column.comment or "", column)


def _from_metadata(name: str, kind: ColumnKind, sql: str) -> ExportColumn:
    return ExportColumn(name, kind, upstream_facts.COMMENTS[name], literal_column(sql))


def _clock_time(name: str, seconds: str) -> ExportColumn:
    sql = f"({upstream_facts.RECORDED_AT}) + events.{seconds} * interval '1 second'"
    return ExportColumn(
        name, ColumnKind.TIME, f"recorded_at plus {seconds}; null without recorded_at", literal_column(sql)
    )


_URI: Final = ExportColumn(
    "uri", ColumnKind.TEXT, "s3://bucket/key", literal_column("'s3://'") + recordings.c.bucket + "/" + recordings.c.key
)
_MODEL: Final = ExportColumn(
    "model",
    ColumnKind.TEXT,
    "name@version of the model, or the requested model that no worker serves",
    func.coalesce(models.c.name + "@" + models.c.version, analyses.c.model_requested),
)
_ANALYSIS_ID: Final = ExportColumn(
    "analysis_id", ColumnKind.INTEGER, "id of the analysis; it joins the three kinds of rows", analyses.c.id
)
_METADATA: Final = (
    _from_metadata("recorded_at", ColumnKind.TIME, upstream_facts.RECORDED_AT),
    _from_metadata("site", ColumnKind.TEXT, upstream_facts.SITE),
    _from_metadata("subject", ColumnKind.TEXT, upstream_facts.SUBJECT),
)

#: What the rows are -> their columns, in order.
COLUMNS: Final[dict[ExportRows, tuple[ExportColumn, ...]]] = {
    ExportRows.RESULTS: (
        _URI,
        _of(recordings.c.bucket),
        _of(recordings.c.key),
        _of(recordings.c.etag),
        _of(recordings.c.version_id),
        _ANALYSIS_ID,
        _of(analyses.c.job_id),
        _of(analyses.c.state),
        _of(analyses.c.decision),
        _of(analyses.c.bag_probability),
        _of(analyses.c.bag_logit),
        _of(analyses.c.threshold),
        _MODEL,
        _of(analyses.c.profile),
        _of(analyses.c.profile_overridden),
        _of(analyses.c.coverage),
        _of(analyses.c.coverage_overridden),
        _of(analyses.c.segments),
        _of(analyses.c.segments_total),
        _of(recordings.c.duration_s),
        _of(analyses.c.analyzed_s),
        _of(analyses.c.truncated),
        _of(analyses.c.events),
        _of(analyses.c.cough_seconds),
        _of(analyses.c.peak_dbfs),
        _of(analyses.c.rms_dbfs),
        _of(analyses.c.clipped_share),
        _of(analyses.c.dc_offset),
        _of(analyses.c.warnings),
        _of(recordings.c.size_bytes),
        _of(recordings.c.rate_hz),
        _of(recordings.c.channels),
        _of(recordings.c.codec),
        _of(recordings.c.container),
        _of(analyses.c.decoder),
        *_METADATA,
        _of(recordings.c.metadata),
        _of(analyses.c.error_class),
        _of(analyses.c.error_message),
        _of(analyses.c.attempts),
        _of(analyses.c.worker),
        _of(analyses.c.device),
        _of(analyses.c.enqueued_at),
        _of(analyses.c.created_at),
        _of(analyses.c.started_at),
        _of(analyses.c.finished_at),
        *(_of(software.c[name]) for name in NAMES),
    ),
    ExportRows.SEGMENTS: (
        _URI,
        _ANALYSIS_ID,
        _MODEL,
        _of(analyses.c.profile),
        _of(segments.c.bag_index),
        _of(segments.c.segment_index),
        _of(segments.c.start_s),
        _of(segments.c.end_s),
        _of(segments.c.probability),
        _of(segments.c.logit),
    ),
    ExportRows.EVENTS: (
        _URI,
        _ANALYSIS_ID,
        _MODEL,
        _of(analyses.c.profile),
        _of(analyses.c.coverage),
        _of(events.c.event_index),
        _of(events.c.start_s),
        _of(events.c.end_s),
        _of(events.c.peak),
        _of(events.c.mean),
        _of(events.c.bins),
        *_METADATA,
        _clock_time("start_at", "start_s"),
        _clock_time("end_at", "end_s"),
    ),
}
