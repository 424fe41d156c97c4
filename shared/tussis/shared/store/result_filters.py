"""The conditions of a :class:`ResultFilter`."""

from __future__ import annotations

from sqlalchemy import ARRAY, ColumnElement, FromClause, and_, any_, exists, func, literal, or_, select, tuple_
from sqlalchemy.types import Uuid

from tussis.shared.store.records import ResultFilter
from tussis.shared.store.tables.analyses import analyses, jobs
from tussis.shared.store.tables.models import models
from tussis.shared.store.tables.recordings import recordings
from tussis.shared.uris import parse_s3_prefix


def conditions(wanted: ResultFilter) -> list[ColumnElement[bool]]:
    """The conditions on ``analyses`` and ``recordings``, which must be joined. Raises :class:`InvalidUri`."""
    found = _of_analysis(wanted, analyses)
    if wanted.since is not None:  # a newer analysis fulfils it as well
        found.append(analyses.c.created_at >= wanted.since)
    if wanted.prefix is not None:
        found.append(under_prefix(wanted.prefix))
    found += [recordings.c.metadata.op("->>")(name) == text for name, text in wanted.metadata.items()]
    if wanted.newest:
        found.append(_is_newest(wanted))
    if wanted.decision is not None:
        found.append(analyses.c.decision.is_(wanted.decision))
    if wanted.state is not None:
        found.append(analyses.c.state == wanted.state.value)
    return found


def under_prefix(prefix: str) -> ColumnElement[bool]:
    """Recordings under ``s3://bucket`` or ``s3://bucket/start-of-key``. Raises :class:`InvalidUri`."""
    bucket, start = parse_s3_prefix(prefix)
    condition: ColumnElement[bool] = recordings.c.bucket == bucket
    if start:
        # LIKE keeps its default escape character. With any other one PostgreSQL cannot use the index.
        pattern = start.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        condition = condition & recordings.c.key.like(pattern)
    return condition


def _of_analysis(wanted: ResultFilter, table: FromClause) -> list[ColumnElement[bool]]:
    """The conditions that differ between the analyses of a recording. ``table`` is ``analyses`` or an alias of it."""
    found: list[ColumnElement[bool]] = [~table.c.shadow]
    if wanted.until is not None:
        found.append(table.c.created_at < wanted.until)
    if wanted.model is not None:
        found.append(_of_model(wanted.model, table))
    if wanted.job_ids is not None:
        ids = literal(list(wanted.job_ids), ARRAY(Uuid(as_uuid=False)))  # one parameter, whatever the number of ids
        found.append(table.c.id.in_(select(jobs.c.analysis_id).where(jobs.c.job_id == any_(ids))))
    return found


def _of_model(model: str, table: FromClause) -> ColumnElement[bool]:
    """Analyses by this model, and failures because no worker serves it."""
    name, _, version = model.partition("@")
    served = models.c.name == name
    requested: ColumnElement[bool] = func.split_part(table.c.model_requested, "@", 1) == name
    if version:
        served = served & (models.c.version == version)
        requested = table.c.model_requested == model
    return or_(table.c.model_id.in_(select(models.c.id).where(served)), requested)


def _is_newest(wanted: ResultFilter) -> ColumnElement[bool]:
    """No newer analysis of the recording matches. A page then needs an index lookup a row, and no sort of all rows."""
    newer = analyses.alias("newer")
    later = tuple_(newer.c.created_at, newer.c.id) > tuple_(analyses.c.created_at, analyses.c.id)
    return ~exists().where(and_(newer.c.recording_id == analyses.c.recording_id, later, *_of_analysis(wanted, newer)))
