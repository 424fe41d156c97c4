"""Rows for an export: one statement whose rows come in batches, so that neither side holds all of them.

One statement reads one snapshot. Pages would not do: an analysis that is added between two pages makes an older one
cease to be the newest, and ``newest`` would then leave out its recording.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine, Row, Select, select, text

from tussis.shared.store.export_columns import COLUMNS, ExportRows
from tussis.shared.store.records import ResultFilter
from tussis.shared.store.result_filters import conditions
from tussis.shared.store.tables.analyses import analyses
from tussis.shared.store.tables.answers import events, segments
from tussis.shared.store.tables.models import models, software
from tussis.shared.store.tables.recordings import recordings

#: Seconds for the server to find the first batch, which can need a sort of all rows.
EXPORT_TIMEOUT_S: Final = 600
#: Seconds for which the reader of an export may pause, for example a pager. The server then ends the transaction, so
#: that a forgotten export does not keep old rows from being removed.
_PAUSE_S: Final = 3600
#: Rows that the server sends at a time.
_BATCH: Final = 2_000

_Rows = Iterator[Sequence[Row[Any]]]


@dataclass(frozen=True, slots=True)
class EventToExtract:
    """A cough event, and the object in which it is. ``etag`` is the analysed content, ``rate_hz`` its sample rate."""

    bucket: str
    key: str
    etag: str
    version_id: str | None
    size_bytes: int | None
    rate_hz: int
    analysis_id: int
    index: int
    start_s: float
    end_s: float
    peak: float

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def export(engine: Engine, what: ExportRows, wanted: ResultFilter) -> _Rows:
    """The rows in batches, with the columns of :data:`COLUMNS`. ``wanted.limit`` counts analyses.

    The order is newest analysis first, then by index of bag and segment, or of event.
    """
    yield from _streamed(
        engine, _selected(what, wanted, [column.expression.label(column.name) for column in COLUMNS[what]])
    )


def events_to_extract(engine: Engine, wanted: ResultFilter) -> Iterator[EventToExtract]:
    """The cough events with the facts to find their audio, in the order of :func:`export`."""
    statement = _selected(
        ExportRows.EVENTS,
        wanted,
        [
            recordings.c.bucket,
            recordings.c.key,
            recordings.c.etag,
            recordings.c.version_id,
            recordings.c.size_bytes,
            recordings.c.rate_hz,
            analyses.c.id,
            events.c.event_index,
            events.c.start_s,
            events.c.end_s,
            events.c.peak,
        ],
    )
    for batch in _streamed(engine, statement):
        for row in batch:
            yield EventToExtract(*tuple(row))


def _selected(what: ExportRows, wanted: ResultFilter, columns: Sequence[Any]) -> Select[Any]:
    newest_first = (analyses.c.created_at.desc(), analyses.c.id.desc())
    statement = (
        select(*columns)
        .join_from(analyses, recordings, recordings.c.id == analyses.c.recording_id)
        .outerjoin(models, models.c.id == analyses.c.model_id)
        .outerjoin(software, software.c.id == analyses.c.software_id)
    )
    if wanted.limit is None:
        statement = statement.where(*conditions(wanted))
    else:
        chosen = (
            select(analyses.c.id)
            .join(recordings, recordings.c.id == analyses.c.recording_id)
            .where(*conditions(wanted))
            .order_by(*newest_first)
            .limit(wanted.limit)
        )
        statement = statement.where(analyses.c.id.in_(chosen.correlate(None)))
    if what is ExportRows.SEGMENTS:
        same = (segments.c.analysis_id == analyses.c.id) & (segments.c.analysis_created_at == analyses.c.created_at)
        return statement.join(segments, same).order_by(*newest_first, segments.c.bag_index, segments.c.segment_index)
    if what is ExportRows.EVENTS:
        return statement.join(events, events.c.analysis_id == analyses.c.id).order_by(
            *newest_first, events.c.event_index
        )
    return statement.order_by(*newest_first)


def _streamed(engine: Engine, statement: Select[Any]) -> _Rows:
    with engine.connect() as connection:
        connection.execute(text(f"SELECT set_config('idle_in_transaction_session_timeout', '{_PAUSE_S}s', true)"))
        with connection.execute(statement, execution_options={"yield_per": _BATCH}) as found:
            yield from found.partitions()
