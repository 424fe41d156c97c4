"""Cough events, and their numbers in each hour and day."""

from __future__ import annotations

from typing import Final

from tussis.shared.events import BIN_S
from tussis.shared.store import upstream_facts
from tussis.shared.store.tables.answers import events
from tussis.shared.store.views.view import View

_COUGH_EVENTS = """
SELECT
    current.uri,
    current.bucket,
    current.key,
    events.event_index,
    events.start_s,
    events.end_s,
    events.end_s - events.start_s AS length_s,
    events.peak,
    events.mean,
    events.bins,
    current.recorded_at + events.start_s * interval '1 second' AS starts_at,
    current.recorded_at + events.end_s * interval '1 second' AS ends_at,
    current.recorded_at,
    current.site,
    current.subject,
    current.duration_s,
    current.analyzed_s,
    current.model,
    current.profile,
    current.coverage,
    current.decision,
    current.bag_probability,
    current.threshold,
    current.warnings,
    current.metadata,
    current.created_at,
    current.finished_at,
    current.analysis_id,
    current.recording_id
FROM current
JOIN events ON events.analysis_id = current.analysis_id
"""


def _coughs_by(unit: str, kind: str) -> str:
    """The numbers of each unit of time in UTC, in a column of this type.

    A recording that lasts over the end of a unit has a part in each of the two. Most recordings have one part: then the
    numbers of the analysis are those of the part, and the table events is not read.
    """
    return f"""
SELECT
    {kind} AS {unit},
    part.site,
    count(*) FILTER (WHERE NOT part.silent) AS recordings,
    count(*) FILTER (WHERE part.silent) AS silent_recordings,
    coalesce(sum(part.audio_s) FILTER (WHERE NOT part.silent), 0) / 3600 AS recorded_hours,
    coalesce(sum(part.events) FILTER (WHERE NOT part.silent), 0)::bigint AS events,
    coalesce(sum(part.cough_seconds) FILTER (WHERE NOT part.silent), 0) AS cough_seconds,
    3600 * (sum(part.events) FILTER (WHERE NOT part.silent))::double precision
        / nullif(sum(part.audio_s) FILTER (WHERE NOT part.silent), 0) AS events_per_recorded_hour
FROM (
    SELECT
        period.starts,
        result.site,
        result.silent,
        CASE
            WHEN result.one_part THEN result.analyzed_s
            ELSE extract(
                epoch FROM least(result.ends, period.starts + interval '1 {unit}')
                    - greatest(result.starts, period.starts)
            )::double precision
        END AS audio_s,
        CASE
            WHEN result.one_part OR result.events = 0 THEN result.events
            ELSE (
                SELECT count(*)
                FROM events
                WHERE events.analysis_id = result.analysis_id
                    AND date_trunc('{unit}', result.starts + events.start_s * interval '1 second') = period.starts
            )
        END AS events,
        CASE
            WHEN result.one_part OR result.events = 0 THEN result.cough_seconds
            ELSE (
                SELECT coalesce({BIN_S} * sum(events.bins), 0)
                FROM events
                WHERE events.analysis_id = result.analysis_id
                    AND date_trunc('{unit}', result.starts + events.start_s * interval '1 second') = period.starts
            )
        END AS cough_seconds
    FROM (
        SELECT
            *,
            -- The last microsecond of the audio is in its last part.
            greatest(starts, ends - interval '1 microsecond') AS last,
            coalesce(
                date_trunc('{unit}', starts)
                    = date_trunc('{unit}', greatest(starts, ends - interval '1 microsecond')),
                true
            ) AS one_part
        FROM (
            SELECT
                current.analysis_id,
                current.recorded_at AT TIME ZONE 'UTC' AS starts,
                (current.recorded_at AT TIME ZONE 'UTC') + current.analyzed_s * interval '1 second' AS ends,
                current.analyzed_s,
                current.site,
                coalesce('silent' = ANY (current.warnings), false) AS silent,
                current.events,
                current.cough_seconds
            FROM current
            WHERE current.state = 'succeeded' AND current.events IS NOT NULL
        ) AS timed
    ) AS result
    CROSS JOIN LATERAL unnest(
        CASE
            WHEN result.one_part THEN ARRAY[date_trunc('{unit}', result.starts)]
            ELSE ARRAY(
                SELECT generate_series(date_trunc('{unit}', result.starts), result.last, interval '1 {unit}')
            )
        END
    ) AS period (starts)
) AS part
GROUP BY part.starts, part.site
"""


#: Columns with the comments that they have in the table ``events``.
_EVENT_COLUMNS = {
    name: events.c[name].comment or "" for name in ("event_index", "start_s", "end_s", "peak", "mean", "bins")
}


def _numbers(unit: str, time: str) -> View:
    return View(
        _coughs_by(unit, "part.starts AT TIME ZONE 'UTC'" if unit == "hour" else "part.starts::date"),
        f"One row for each {unit} in UTC and each site: how much was recorded, and how many cough events. From the "
        "results in the view current. Results from before revision 0005 of the schema have no events and are omitted.",
        {
            unit: f"{time} in UTC, from recorded_at; null for recordings without recorded_at",
            "site": "place of the recording, from metadata site; null if it is absent or not valid",
            "recordings": f"number of recordings with audio in the {unit}, without silent ones; a recording that lasts "
            f"over the end of the {unit} is counted in each",
            "silent_recordings": "number of recordings with the warning silent; no other column counts them",
            "recorded_hours": f"length of the analysed audio in the {unit}, in hours",
            "events": f"number of cough events that start in the {unit}; an event is a bout, not a single cough",
            "cough_seconds": "length of these events in seconds: 0.5 s for each bin",
            "events_per_recorded_hour": "events divided by recorded_hours; null if no audio was analysed",
        },
    )


VIEWS: Final[dict[str, View]] = {
    "cough_events": View(
        _COUGH_EVENTS,
        "One row for each cough event of the results in the view current. A cough event is a bout of one or more "
        "coughs, not a single cough.",
        {
            "uri": "s3://bucket/key",
            "bucket": "S3 bucket",
            "key": "S3 object key",
            **_EVENT_COLUMNS,
            "length_s": "length of the event in seconds",
            "starts_at": "time of day at which the event starts: recorded_at + start_s; null without recorded_at",
            "ends_at": "time of day at which the event ends: recorded_at + end_s; null without recorded_at",
            **upstream_facts.COMMENTS,
            "duration_s": "duration of the recording in seconds",
            "analyzed_s": "length of the analysed audio in seconds, from the start of the recording",
            "model": "name@version",
            "profile": "preprocessing profile",
            "coverage": "part of the recording that was analysed; head: the first 32 segments; full: all segments",
            "decision": "decision for the recording; a recording without cough can have events, and the reverse",
            "bag_probability": "probability that the recording contains a cough, 0 to 1",
            "threshold": "threshold for bag_probability; it does not apply to events",
            "warnings": "properties of the recording that make the result doubtful; empty if there are none",
            "metadata": "metadata of the most recent message that had any, as JSON",
            "created_at": "time of the first claim",
            "finished_at": "time at which the analysis ended",
            "analysis_id": "analyses.id",
            "recording_id": "recordings.id",
        },
    ),
    "coughs_by_hour": _numbers("hour", "start of the hour"),
    "coughs_by_day": _numbers("day", "day"),
}
