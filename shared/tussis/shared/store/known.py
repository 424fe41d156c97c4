"""The analyses of many objects in one query, for a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, func, or_, select, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from tussis.shared.states import AnalysisState
from tussis.shared.store.schema import analyses, jobs, models, recordings
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

    A message that reopens a failure must be enqueued at ``newer_than`` or later.
    """

    state: AnalysisState
    error_class: str | None
    newer_than: datetime | None

    @property
    def reopens(self) -> bool:
        """Whether any newer message reopens this failure, because its cause may be gone."""
        return self.state is AnalysisState.FAILED and self.error_class in REOPENING


def known(
    connection: Connection, bucket: str, objects: Sequence[tuple[str, str]], criteria: AnalysisCriteria
) -> dict[tuple[str, str], Known]:
    """(key, entity tag) -> its analysis, in one query. Objects without a matching analysis are omitted."""
    rows = connection.execute(
        known_statement(bucket, criteria), {"keys": [key for key, _ in objects], "etags": [etag for _, etag in objects]}
    ).all()
    found: dict[tuple[str, str], Known] = {}
    for row in rows:
        one = Known(AnalysisState(row.state), row.error_class, row.newer_than)
        other = found.get((row.key, row.etag))
        if other is None or _RANK[one.state] < _RANK[other.state]:
            found[row.key, row.etag] = one
    return found


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
        .where(*_conditions(criteria))
    )


def _conditions(criteria: AnalysisCriteria) -> list[ColumnElement[bool]]:
    if criteria.profile is None:
        profile: ColumnElement[bool] = analyses.c.profile_overridden.is_(False)
    else:
        profile = analyses.c.profile == criteria.profile
    if criteria.coverage is None:
        coverage: ColumnElement[bool] = analyses.c.coverage_overridden.is_(False)
    else:
        coverage = analyses.c.coverage == criteria.coverage
    return [coverage, profile, _model(criteria)]


def _model(criteria: AnalysisCriteria) -> ColumnElement[bool]:
    if criteria.sha256 is not None:
        return models.c.sha256 == criteria.sha256
    if criteria.model is None:
        return true()
    name, _, version = criteria.model.partition("@")
    named = models.c.name == name
    if version:
        named = named & (models.c.version == version)
    return or_(named, analyses.c.model_requested == criteria.model)
