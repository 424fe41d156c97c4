"""The analyses of many objects, for a sweep: one query, and another one for the objects without an analysis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, bindparam, func, or_, select, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from tussis.shared.states import AnalysisState
from tussis.shared.store.tables.analyses import analyses, jobs
from tussis.shared.store.tables.forgetting import tombstones
from tussis.shared.store.tables.models import models
from tussis.shared.store.tables.recordings import recordings
from tussis.shared.store.transitions import REOPENING

#: Added to stored times: a message that reopens a failure must be newer, or it would count as a redelivery.
TICK = timedelta(milliseconds=1)

# If several analyses meet the criteria (``again``, any model), the one with the lowest rank counts.
_RANK = {
    AnalysisState.SUCCEEDED: 0,
    AnalysisState.DISCARDED: 1,
    AnalysisState.RUNNING: 2,
    AnalysisState.WAITING: 3,
    AnalysisState.FAILED: 4,
    AnalysisState.CANCELLED: 5,
}

_WANTED = (
    func.unnest(bindparam("keys", type_=ARRAY(Text)), bindparam("etags", type_=ARRAY(Text)))
    .table_valued("key", "etag", name="wanted")
    .render_derived()
)
_NEWER = func.greatest(
    analyses.c.finished_at + TICK,
    select(func.max(jobs.c.enqueued_at) + TICK).where(jobs.c.analysis_id == analyses.c.id).scalar_subquery(),
)


#: A job that named no model was cancelled before the first worker registered a model.
_CANCELLED_EARLY = and_(
    analyses.c.state == AnalysisState.CANCELLED.value,
    analyses.c.model_id.is_(None),
    analyses.c.model_requested.is_(None),
)


@dataclass(frozen=True, kw_only=True)
class AnalysisCriteria:
    """Which analyses of an object match.

    The model is the file with this ``sha256``, or ``model`` (name or name@version), or any model if both are None.
    ``profile`` None is the profile of the model, and ``coverage`` None is its coverage.
    """

    sha256: str | None = None
    model: str | None = None
    profile: str | None = None
    coverage: str | None = None


@dataclass(frozen=True)
class Known:
    """The analysis of an object that meets the criteria.

    A message that reopens a failure, or a cancelled analysis, must be enqueued at ``newer_than`` or later.
    """

    state: AnalysisState
    error_class: str | None
    newer_than: datetime | None

    @property
    def reopens(self) -> bool:
        """Whether any newer message reopens this failure, because its cause may be gone."""
        return self.state is AnalysisState.FAILED and self.error_class in REOPENING


@dataclass(frozen=True)
class Deleted:
    """The analyses of an object that met the criteria were deleted. The last one was deleted at ``deleted_at``."""

    deleted_at: datetime


def known(
    connection: Connection, bucket: str, objects: Sequence[tuple[str, str]], criteria: AnalysisCriteria
) -> dict[tuple[str, str], Known | Deleted]:
    """(key, entity tag) -> its analysis. Objects that have and had no matching analysis are omitted."""
    rows = connection.execute(
        known_statement(bucket, criteria), {"keys": [key for key, _ in objects], "etags": [etag for _, etag in objects]}
    ).all()
    found: dict[tuple[str, str], Known] = {}
    for row in rows:
        one = Known(AnalysisState(row.state), row.error_class, row.newer_than)
        other = found.get((row.key, row.etag))
        if other is None or _RANK[one.state] < _RANK[other.state]:
            found[row.key, row.etag] = one
    others = [which for which in objects if which not in found]
    deleted = _deleted(connection, bucket, others, criteria) if others else {}
    return {**found, **deleted}


def _deleted(
    connection: Connection, bucket: str, objects: Sequence[tuple[str, str]], criteria: AnalysisCriteria
) -> dict[tuple[str, str], Deleted]:
    rows = connection.execute(
        select(tombstones.c.key, tombstones.c.etag, func.max(tombstones.c.deleted_at))
        .select_from(_WANTED)
        .join(
            tombstones,
            and_(
                tombstones.c.bucket == bucket,
                tombstones.c.key == _WANTED.c.key,
                tombstones.c.etag == _WANTED.c.etag,
            ),
        )
        .join(models, models.c.id == tombstones.c.model_id)
        .where(*_conditions(tombstones, criteria))
        .group_by(tombstones.c.key, tombstones.c.etag),
        {"keys": [key for key, _ in objects], "etags": [etag for _, etag in objects]},
    )
    return {(key, etag): Deleted(deleted_at) for key, etag, deleted_at in rows}


def known_statement(bucket: str, criteria: AnalysisCriteria) -> Select[Any]:
    """The query of :func:`known`. Its parameters ``keys`` and ``etags`` are arrays of equal length."""
    return (
        select(
            recordings.c.key,
            recordings.c.etag,
            analyses.c.state,
            analyses.c.error_class,
            _NEWER.label("newer_than"),
        )
        .select_from(_WANTED)
        .join(
            recordings,
            and_(
                recordings.c.bucket == bucket,
                recordings.c.key == _WANTED.c.key,
                recordings.c.etag == _WANTED.c.etag,
            ),
        )
        .join(analyses, analyses.c.recording_id == recordings.c.id)
        .outerjoin(models, models.c.id == analyses.c.model_id)
        .where(~analyses.c.shadow, or_(and_(*_conditions(analyses, criteria)), _CANCELLED_EARLY))
    )


def _conditions(table: Table, criteria: AnalysisCriteria) -> list[ColumnElement[bool]]:
    """The conditions on ``analyses`` or ``tombstones``, joined with ``models``."""
    if criteria.profile is None:
        profile: ColumnElement[bool] = table.c.profile_overridden.is_(False)
    else:
        profile = table.c.profile == criteria.profile
    if criteria.coverage is None:
        coverage: ColumnElement[bool] = table.c.coverage_overridden.is_(False)
    else:
        coverage = table.c.coverage == criteria.coverage
    return [coverage, profile, _model(table, criteria)]


def _model(table: Table, criteria: AnalysisCriteria) -> ColumnElement[bool]:
    if criteria.sha256 is not None:
        return models.c.sha256 == criteria.sha256
    if criteria.model is None:
        return true()
    name, _, version = criteria.model.partition("@")
    named = models.c.name == name
    if version:
        named = named & (models.c.version == version)
    return or_(named, analyses.c.model_requested == criteria.model) if table is analyses else named
