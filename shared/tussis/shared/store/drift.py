"""The distribution of each measure in two periods, over the answers in the view ``current``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

from tussis.shared.store.views.drift import CATEGORIES, MADE_AT, NUMBERS, bin_of

#: Categories that are measured beside those of the view, which has a column for each of these two.
_ALSO: Final = {"site": "coalesce(current.site, '')", "model": "current.model"}
_CATEGORIES: Final = CATEGORIES | _ALSO
#: The measures in the order of the columns.
MEASURES: Final = (*NUMBERS, *_CATEGORIES)


@dataclass(frozen=True)
class Period:
    """The recordings made from ``start`` (inclusive) to ``end`` (exclusive)."""

    start: datetime
    end: datetime


@dataclass
class Sample:
    """The results of one span: the number in each bin or category, and the median if the measure is a number.

    A bin is its index: 0 is below the first limit. A category is its text, which is empty for none. The median of a
    level is minus infinity if it is digital silence.
    """

    counts: dict[int | str, int] = field(default_factory=dict)
    median: float | None = None

    @property
    def results(self) -> int:
        """The number of results in which the measure was measured."""
        return sum(self.counts.values())


@dataclass
class DriftGroup:
    """The results with one value of the metadata: measure -> its samples in the period and in the reference period.

    ``name`` is empty for results without this metadata, and for all results if they have no groups.
    """

    name: str
    period: dict[str, Sample] = field(default_factory=lambda: {name: Sample() for name in MEASURES})
    reference: dict[str, Sample] = field(default_factory=lambda: {name: Sample() for name in MEASURES})


def _list(parts: Iterable[str]) -> str:
    return ", ".join(parts)


# Both spans in one pass over the answers, because most of the time goes into reading them. A row of a grouping set has
# the value of one measure, and the other measures are NULL. percentile_disc takes a value of the sample, so it can
# handle the infinite level of digital silence.
_STATEMENT: Final = f"""
WITH result AS MATERIALIZED (
    SELECT
        {MADE_AT} >= CAST(:start AS timestamptz) AND {MADE_AT} < CAST(:end AS timestamptz) AS in_period,
        %(group)s AS of_group,
        {_list(f"{value} AS {name}" for name, value in (NUMBERS | _CATEGORIES).items())}
    FROM current
    JOIN recordings ON recordings.id = current.recording_id
    WHERE current.state = 'succeeded'
        AND (
            ({MADE_AT} >= CAST(:start AS timestamptz) AND {MADE_AT} < CAST(:end AS timestamptz))
            OR ({MADE_AT} >= CAST(:reference_start AS timestamptz) AND {MADE_AT} < CAST(:reference_end AS timestamptz))
        )
),
chosen AS MATERIALIZED (
    SELECT of_group
    FROM result
    GROUP BY of_group
    ORDER BY count(*) FILTER (WHERE in_period) DESC, count(*) DESC, of_group
    LIMIT :groups
)
SELECT of_group, in_period, count(*), {_list(MEASURES)}
FROM (
    SELECT
        of_group,
        in_period,
        {_list(f"{bin_of(name, name)}::double precision AS {name}" for name in NUMBERS)},
        {_list(_CATEGORIES)}
    FROM result
    WHERE of_group IN (SELECT of_group FROM chosen)
) AS binned
GROUP BY GROUPING SETS ({_list(f"(of_group, in_period, {name})" for name in MEASURES)})
UNION ALL
SELECT
    of_group,
    in_period,
    NULL,
    {_list(f"percentile_disc(0.5) WITHIN GROUP (ORDER BY {name})" for name in NUMBERS)},
    {_list("NULL" for _ in _CATEGORIES)}
FROM result
WHERE of_group IN (SELECT of_group FROM chosen)
GROUP BY of_group, in_period
"""
_ALL: Final = text(_STATEMENT % {"group": "''::text"})
_BY_METADATA: Final = text(_STATEMENT % {"group": "coalesce(current.metadata ->> CAST(:by AS text), '')"})


def drift(connection: Connection, period: Period, reference: Period, by: str | None, groups: int) -> list[DriftGroup]:
    """The samples of all results, or of each value of the metadata ``by``: the ``groups`` values with most results."""
    parameters = {
        "start": period.start,
        "end": period.end,
        "reference_start": reference.start,
        "reference_end": reference.end,
        "groups": groups,
    }
    if by is None:
        found = connection.execute(_ALL, parameters)
    else:
        found = connection.execute(_BY_METADATA, parameters | {"by": by})
    result: dict[str, DriftGroup] = {}
    for name, in_period, count, *values in found:
        group = result.setdefault(name, DriftGroup(name))
        samples = group.period if in_period else group.reference
        for measure, value in zip(MEASURES, values, strict=True):
            if value is None:
                continue
            if count is None:
                samples[measure].median = value
            else:
                samples[measure].counts[int(value) if measure in NUMBERS else value] = count
    return list(result.values())
