"""The distribution of each measure of recordings and answers in each week, so that a change shows.

:mod:`tussis.shared.store.drift` counts the same measures in the same bins for any two periods.
"""

from __future__ import annotations

from typing import Final

from tussis.shared.store import upstream_facts
from tussis.shared.store.views.view import View

#: The limits of the bins. Bin 0 is below the first limit, and each limit is the lowest value of its bin.
_LEVEL: Final = tuple(float(level) for level in range(-84, 1, 3))
_PROBABILITY: Final = tuple(step / 20 for step in range(1, 20))
_OFFSET: Final = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
#: The first bin has the recordings without a clipped sample: three samples of two hours at 192 kHz are 2e-9.
_CLIPPED: Final = (1e-09, 0.00001, 0.0001, 0.001, 0.01, 0.1)
_DURATION: Final = (0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)

#: A measure that is a number -> the limits of its bins.
EDGES: Final[dict[str, tuple[float, ...]]] = {
    "bag_probability": _PROBABILITY,
    "rms_dbfs": _LEVEL,
    "peak_dbfs": _LEVEL,
    "dc_offset": _OFFSET,
    "clipped_share": _CLIPPED,
    "duration_s": _DURATION,
}

#: A measure that is a number -> its expression over ``current``. NULL: it was not measured.
#: The level of digital silence is minus infinity.
NUMBERS: Final = {
    "bag_probability": "current.bag_probability",
    "rms_dbfs": "CASE WHEN current.clipped_share IS NOT NULL THEN coalesce(current.rms_dbfs, '-Infinity') END",
    "peak_dbfs": "CASE WHEN current.clipped_share IS NOT NULL THEN coalesce(current.peak_dbfs, '-Infinity') END",
    "dc_offset": "current.dc_offset",
    "clipped_share": "current.clipped_share",
    "duration_s": "current.duration_s",
}

#: A measure that is a category -> its expression over ``current``. NULL: it was not measured. Empty: it has no value.
CATEGORIES: Final = {
    "decision": "CASE WHEN current.decision THEN 'cough' ELSE 'no cough' END",
    "warnings": "array_to_string(current.warnings, ', ')",
    "codec": "coalesce(current.codec, '')",
    "container": "coalesce(current.container, '')",
    "rate_hz": "coalesce(current.rate_hz::text, '')",
    "channels": "coalesce(current.channels::text, '')",
}

#: When a recording was made: its time by metadata, or else the time at which Tussis first received it. An analysis that
#: is done again does not move a recording to another week. The table ``recordings`` has an index on it.
MADE_AT: Final = "coalesce(recordings.recorded_at, recordings.created_at)"


def bin_of(measure: str, value: str) -> str:
    """The expression for the bin of a value."""
    return f"width_bucket({value}, {_array(measure)})"


def _array(measure: str) -> str:
    return f"'{{{', '.join(f'{edge:.9g}' for edge in EDGES[measure])}}}'::double precision[]"


def _lines(parts: list[str], indent: int) -> str:
    return f",\n{' ' * indent}".join(parts)


_COLUMNS: Final = _lines(
    [f"{bin_of(name, value)} AS {name}" for name, value in NUMBERS.items()]
    + [f"{value} AS {name}" for name, value in CATEGORIES.items()],
    12,
)
_SETS: Final = _lines([f"(result.week, result.site, result.model, result.{name})" for name in NUMBERS | CATEGORIES], 8)
_MEASURES: Final = _lines(
    [f"('{name}', counted.{name}, {_array(name)}, NULL)" for name in NUMBERS]
    + [f"('{name}', NULL, NULL, counted.{name})" for name in CATEGORIES],
    4,
)

# A row of a grouping set has the value of one measure. The other measures are NULL.
_DRIFT_BY_WEEK: Final = f"""
SELECT
    counted.week,
    counted.site,
    counted.model,
    measured.measure,
    measured.edges[measured.bin] AS bin_from,
    measured.edges[measured.bin + 1] AS bin_to,
    measured.category,
    counted.results
FROM (
    SELECT result.*, count(*) AS results
    FROM (
        SELECT
            date_trunc('week', made.at AT TIME ZONE 'UTC')::date AS week,
            current.site,
            current.model,
            {_COLUMNS}
        FROM current
        JOIN recordings ON recordings.id = current.recording_id
        CROSS JOIN LATERAL (SELECT {MADE_AT} AS at) AS made
        WHERE current.state = 'succeeded'
    ) AS result
    GROUP BY GROUPING SETS (
        {_SETS}
    )
) AS counted
CROSS JOIN LATERAL (VALUES
    {_MEASURES}
) AS measured (measure, bin, edges, category)
WHERE measured.bin IS NOT NULL OR measured.category IS NOT NULL
"""

VIEWS: Final[dict[str, View]] = {
    "drift_by_week": View(
        _DRIFT_BY_WEEK,
        "One row for each week in UTC, site, model, measure, and bin or category: the number of results in the view "
        "current. A change of the app or of the microphone changes the shares. The measures: "
        f"{', '.join(NUMBERS | CATEGORIES)}.",
        {
            "week": "Monday of the week in UTC in which the recordings were made: by recorded_at, or without it by the "
            "time at which Tussis first received the recording",
            "site": upstream_facts.COMMENTS["site"],
            "model": "name@version",
            "measure": "name of the measure: a column of the view current",
            "bin_from": "lowest value of the bin; null for the lowest bin, and for a category",
            "bin_to": "limit of the bin: values of the bin are below it; null for the highest bin, and for a category",
            "category": "value of a measure that is not a number; empty if it has none; null for a number",
            "results": "number of results in the bin or category",
        },
    ),
}
