"""Drift: the distribution of each measure in each week, and an index on the time at which a recording was made.

Revision: 0010
After: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# Do not change these definitions. Later revisions have their own.
_PROBABILITY = (
    "'{0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, "
    "0.95}'::double precision[]"
)
_LEVEL = (
    "'{-84, -81, -78, -75, -72, -69, -66, -63, -60, -57, -54, -51, -48, -45, -42, -39, -36, -33, -30, -27, "
    "-24, -21, -18, -15, -12, -9, -6, -3, 0}'::double precision[]"
)
_OFFSET = "'{0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2}'::double precision[]"
_CLIPPED = "'{1e-09, 1e-05, 0.0001, 0.001, 0.01, 0.1}'::double precision[]"
_DURATION = "'{0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120, 300, 600, 1800, 3600}'::double precision[]"
_RMS = "CASE WHEN current.clipped_share IS NOT NULL THEN coalesce(current.rms_dbfs, '-Infinity') END"
_PEAK = "CASE WHEN current.clipped_share IS NOT NULL THEN coalesce(current.peak_dbfs, '-Infinity') END"

_DRIFT_BY_WEEK = f"""
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
            width_bucket(current.bag_probability, {_PROBABILITY}) AS bag_probability,
            width_bucket({_RMS}, {_LEVEL}) AS rms_dbfs,
            width_bucket({_PEAK}, {_LEVEL}) AS peak_dbfs,
            width_bucket(current.dc_offset, {_OFFSET}) AS dc_offset,
            width_bucket(current.clipped_share, {_CLIPPED}) AS clipped_share,
            width_bucket(current.duration_s, {_DURATION}) AS duration_s,
            CASE WHEN current.decision THEN 'cough' ELSE 'no cough' END AS decision,
            array_to_string(current.warnings, ', ') AS warnings,
            coalesce(current.codec, '') AS codec,
            coalesce(current.container, '') AS container,
            coalesce(current.rate_hz::text, '') AS rate_hz,
            coalesce(current.channels::text, '') AS channels
        FROM current
        JOIN recordings ON recordings.id = current.recording_id
        CROSS JOIN LATERAL (SELECT coalesce(recordings.recorded_at, recordings.created_at) AS at) AS made
        WHERE current.state = 'succeeded'
    ) AS result
    GROUP BY GROUPING SETS (
        (result.week, result.site, result.model, result.bag_probability),
        (result.week, result.site, result.model, result.rms_dbfs),
        (result.week, result.site, result.model, result.peak_dbfs),
        (result.week, result.site, result.model, result.dc_offset),
        (result.week, result.site, result.model, result.clipped_share),
        (result.week, result.site, result.model, result.duration_s),
        (result.week, result.site, result.model, result.decision),
        (result.week, result.site, result.model, result.warnings),
        (result.week, result.site, result.model, result.codec),
        (result.week, result.site, result.model, result.container),
        (result.week, result.site, result.model, result.rate_hz),
        (result.week, result.site, result.model, result.channels)
    )
) AS counted
CROSS JOIN LATERAL (VALUES
    ('bag_probability', counted.bag_probability, {_PROBABILITY}, NULL),
    ('rms_dbfs', counted.rms_dbfs, {_LEVEL}, NULL),
    ('peak_dbfs', counted.peak_dbfs, {_LEVEL}, NULL),
    ('dc_offset', counted.dc_offset, {_OFFSET}, NULL),
    ('clipped_share', counted.clipped_share, {_CLIPPED}, NULL),
    ('duration_s', counted.duration_s, {_DURATION}, NULL),
    ('decision', NULL, NULL, counted.decision),
    ('warnings', NULL, NULL, counted.warnings),
    ('codec', NULL, NULL, counted.codec),
    ('container', NULL, NULL, counted.container),
    ('rate_hz', NULL, NULL, counted.rate_hz),
    ('channels', NULL, NULL, counted.channels)
) AS measured (measure, bin, edges, category)
WHERE measured.bin IS NOT NULL OR measured.category IS NOT NULL
"""
_COMMENT = (
    "One row for each week in UTC, site, model, measure, and bin or category: the number of results in "
    "the view current. A change of the app or of the microphone changes the shares. The measures: "
    "bag_probability, rms_dbfs, peak_dbfs, dc_offset, clipped_share, duration_s, decision, warnings, "
    "codec, container, rate_hz, channels."
)

_COLUMNS = {
    "week": (
        "Monday of the week in UTC in which the recordings were made: by recorded_at, or without it by the "
        "time at which Tussis first received the recording"
    ),
    "site": "place of the recording, from metadata site; null if it is absent or not valid",
    "model": "name@version",
    "measure": "name of the measure: a column of the view current",
    "bin_from": "lowest value of the bin; null for the lowest bin, and for a category",
    "bin_to": "limit of the bin: values of the bin are below it; null for the highest bin, and for a category",
    "category": "value of a measure that is not a number; empty if it has none; null for a number",
    "results": "number of results in the bin or category",
}


def upgrade() -> None:
    op.create_index("recordings_made_at_idx", "recordings", [sa.text("coalesce(recorded_at, created_at)")])
    # Not as sa.text: the statement has colons that are no parameters.
    op.get_bind().exec_driver_sql(f"CREATE VIEW drift_by_week AS {_DRIFT_BY_WEEK}")
    _comment("VIEW drift_by_week", _COMMENT)
    for column, comment in _COLUMNS.items():
        _comment(f"COLUMN drift_by_week.{column}", comment)


def downgrade() -> None:
    op.execute("DROP VIEW drift_by_week")
    op.drop_index("recordings_made_at_idx", "recordings")


def _comment(of: str, comment: str) -> None:
    # COMMENT takes no parameters, so the text is part of the statement.
    literal = "'" + comment.replace("'", "''") + "'"
    op.get_bind().exec_driver_sql(f"COMMENT ON {of} IS {literal}")
