"""Views for analysts: cough events, coughs by hour and day, quality, failures, pairs of models, answers of jobs.

Revision: 0007
After: 0006

The recommended metadata become typed columns of recordings and of the view current. A condition on the view can use an
index. The rows of recordings are written again: some seconds for each 100,000.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# Do not change these definitions. Later revisions have their own.
_TIME = (
    "((19[0-9][0-9]|2[01][0-9][0-9]|2200)-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30"
    ")|(0[13578]|1[02])-31)|((19|2[01])(0[48]|[2468][048]|[13579][26])|2000)-02-29)[T ]([01][0-9]|2[0-3])"
    ":[0-5][0-9](:[0-5][0-9]([.][0-9]{1,9})?)?(Z|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?)"
)
_RECORDED_AT = (
    f"CASE WHEN metadata ->> 'recorded_at' ~ '^({_TIME})$' THEN (metadata ->> 'recorded_at')::timestamptz END"
)


def _text(name: str) -> str:
    text = f"metadata ->> '{name}'"
    return (
        f"CASE WHEN jsonb_typeof(metadata -> '{name}') = 'string' AND length({text}) BETWEEN 1 AND 200 "
        rf"AND {text} !~ '[\u0001-\u001f\u007f-\u009f]' THEN {text} END"
    )


# Function -> its type and its expression. Its name is tussis_ and the name here.
_FUNCTIONS = {
    "recorded_at": ("timestamptz", _RECORDED_AT),
    "site": ("text", _text("site")),
    "subject": ("text", _text("subject")),
}

_CURRENT = """
SELECT
    's3://' || recordings.bucket || '/' || recordings.key AS uri,
    recordings.bucket,
    recordings.key,
    recordings.etag,
    recordings.version_id,
    analyses.state,
    analyses.decision,
    analyses.bag_probability,
    analyses.bag_logit,
    analyses.threshold,
    coalesce(models.name || '@' || models.version, analyses.model_requested) AS model,
    analyses.profile,
    analyses.coverage,
    analyses.segments,
    analyses.segments_total,
    recordings.duration_s,
    analyses.analyzed_s,
    analyses.truncated,
    recordings.rate_hz,
    recordings.channels,
    recordings.codec,
    recordings.container,
    analyses.decoder,
    recordings.size_bytes,
    analyses.error_class,
    analyses.error_message,
    analyses.attempts,
    analyses.enqueued_at,
    analyses.started_at,
    analyses.finished_at,
    analyses.created_at,
    recordings.metadata,
    analyses.job_id,
    analyses.id AS analysis_id,
    recordings.id AS recording_id,
    analyses.events,
    analyses.cough_seconds,
    analyses.peak_dbfs,
    analyses.rms_dbfs,
    analyses.clipped_share,
    analyses.dc_offset,
    analyses.warnings,
    recordings.recorded_at,
    recordings.site,
    recordings.subject
FROM analyses
JOIN recordings ON recordings.id = analyses.recording_id
LEFT JOIN models ON models.id = analyses.model_id
WHERE analyses.state IN ('succeeded', 'failed', 'discarded')
    AND NOT analyses.profile_overridden
    AND NOT analyses.coverage_overridden
    AND NOT EXISTS (
        SELECT
        FROM recordings AS same_object
        JOIN analyses AS better ON better.recording_id = same_object.id
        WHERE same_object.bucket = recordings.bucket
            AND same_object.key = recordings.key
            AND better.state IN ('succeeded', 'failed', 'discarded')
            AND NOT better.profile_overridden
            AND NOT better.coverage_overridden
            AND (
                (better.error_class IN ('object_changed', 'model_not_served', 'job_moved')) IS NOT TRUE,
                better.finished_at,
                better.id
            ) > (
                (analyses.error_class IN ('object_changed', 'model_not_served', 'job_moved')) IS NOT TRUE,
                analyses.finished_at,
                analyses.id
            )
    )
"""

# Of revision 0005.
_CURRENT_BEFORE = """
SELECT DISTINCT ON (recordings.bucket, recordings.key)
    's3://' || recordings.bucket || '/' || recordings.key AS uri,
    recordings.bucket,
    recordings.key,
    recordings.etag,
    recordings.version_id,
    analyses.state,
    analyses.decision,
    analyses.bag_probability,
    analyses.bag_logit,
    analyses.threshold,
    coalesce(models.name || '@' || models.version, analyses.model_requested) AS model,
    analyses.profile,
    analyses.coverage,
    analyses.segments,
    analyses.segments_total,
    recordings.duration_s,
    analyses.analyzed_s,
    analyses.truncated,
    recordings.rate_hz,
    recordings.channels,
    recordings.codec,
    recordings.container,
    analyses.decoder,
    recordings.size_bytes,
    analyses.error_class,
    analyses.error_message,
    analyses.attempts,
    analyses.enqueued_at,
    analyses.started_at,
    analyses.finished_at,
    analyses.created_at,
    recordings.metadata,
    analyses.job_id,
    analyses.id AS analysis_id,
    recordings.id AS recording_id,
    analyses.events,
    analyses.cough_seconds,
    analyses.peak_dbfs,
    analyses.rms_dbfs,
    analyses.clipped_share,
    analyses.dc_offset,
    analyses.warnings
FROM analyses
JOIN recordings ON recordings.id = analyses.recording_id
LEFT JOIN models ON models.id = analyses.model_id
WHERE analyses.state IN ('succeeded', 'failed', 'discarded')
    AND NOT analyses.profile_overridden
    AND NOT analyses.coverage_overridden
ORDER BY
    recordings.bucket,
    recordings.key,
    (analyses.error_class IN ('object_changed', 'model_not_served', 'job_moved')) IS TRUE,
    analyses.finished_at DESC,
    analyses.id DESC
"""

_CURRENT_SEGMENTS = """
SELECT
    current.uri,
    current.bucket,
    current.key,
    segments.bag_index,
    segments.segment_index,
    segments.start_s,
    segments.end_s,
    segments.probability,
    segments.logit,
    current.decision,
    current.bag_probability,
    current.threshold,
    current.model,
    current.profile,
    current.finished_at,
    current.analysis_id
FROM current
JOIN segments ON segments.analysis_id = current.analysis_id AND segments.analysis_created_at = current.created_at
"""

_JOB_ANSWERS = """
SELECT
    jobs.job_id,
    analyses.state,
    's3://' || recordings.bucket || '/' || recordings.key AS uri,
    recordings.bucket,
    recordings.key,
    recordings.etag,
    analyses.decision,
    analyses.bag_probability,
    analyses.threshold,
    coalesce(models.name || '@' || models.version, analyses.model_requested) AS model,
    analyses.profile,
    analyses.coverage,
    recordings.duration_s,
    analyses.analyzed_s,
    analyses.truncated,
    analyses.events,
    analyses.cough_seconds,
    analyses.warnings,
    analyses.error_class,
    analyses.error_message,
    analyses.attempts,
    jobs.enqueued_at,
    jobs.received_at,
    analyses.finished_at,
    analyses.id AS analysis_id
FROM jobs
JOIN analyses ON analyses.id = jobs.analysis_id
JOIN recordings ON recordings.id = analyses.recording_id
LEFT JOIN models ON models.id = analyses.model_id
UNION ALL
SELECT
    letters.job_id, 'failed', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    NULL, letters.error_class, letters.error_message, NULL, NULL, letters.received_at, letters.last_received_at, NULL
FROM (
    SELECT DISTINCT ON (dead_letters.job_id)
        CASE
            WHEN dead_letters.job_id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
            THEN dead_letters.job_id::uuid
        END AS job_id,
        dead_letters.error_class,
        dead_letters.error_message,
        dead_letters.received_at,
        dead_letters.last_received_at
    FROM dead_letters
    WHERE dead_letters.ended_job
    ORDER BY dead_letters.job_id, dead_letters.last_received_at DESC
) AS letters
WHERE letters.job_id IS NOT NULL AND NOT EXISTS (SELECT FROM jobs WHERE jobs.job_id = letters.job_id)
"""

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

_QUALITY = """
SELECT
    current.uri,
    current.bucket,
    current.key,
    current.decision,
    current.bag_probability,
    'silent' = ANY (current.warnings) AS silent,
    current.warnings,
    current.peak_dbfs,
    current.rms_dbfs,
    current.clipped_share,
    current.dc_offset,
    current.duration_s,
    current.analyzed_s,
    current.rate_hz,
    current.channels,
    current.codec,
    current.container,
    current.recorded_at,
    current.site,
    current.subject,
    current.model,
    current.created_at,
    current.finished_at,
    current.analysis_id,
    current.recording_id
FROM current
WHERE current.state = 'succeeded'
"""

_FAILURES_BY_CLASS = """
SELECT
    current.error_class,
    count(*) FILTER (WHERE current.state = 'failed') AS failed,
    count(*) FILTER (WHERE current.state = 'discarded') AS discarded,
    min(current.finished_at) AS first_finished_at,
    max(current.finished_at) AS last_finished_at,
    min(current.error_message) AS example_message,
    min(current.uri) AS example_uri
FROM current
WHERE current.state IN ('failed', 'discarded')
GROUP BY current.error_class
"""

_MODEL_PAIRS = """
WITH newest AS NOT MATERIALIZED (
    SELECT analyses.*, models.name || '@' || models.version AS model
    FROM analyses
    JOIN models ON models.id = analyses.model_id
    WHERE analyses.state = 'succeeded'
        AND NOT analyses.profile_overridden
        AND NOT EXISTS (
            SELECT
            FROM analyses AS newer
            WHERE newer.recording_id = analyses.recording_id
                AND newer.model_id = analyses.model_id
                AND newer.coverage = analyses.coverage
                AND newer.state = 'succeeded'
                AND NOT newer.profile_overridden
                AND (newer.finished_at, newer.id) > (analyses.finished_at, analyses.id)
        )
)
SELECT
    's3://' || recordings.bucket || '/' || recordings.key AS uri,
    recordings.bucket,
    recordings.key,
    recordings.etag,
    one.coverage,
    one.model,
    other.model AS other_model,
    one.profile,
    other.profile AS other_profile,
    one.bag_probability,
    other.bag_probability AS other_bag_probability,
    one.bag_logit,
    other.bag_logit AS other_bag_logit,
    one.threshold,
    other.threshold AS other_threshold,
    one.decision,
    other.decision AS other_decision,
    one.decision <> other.decision AS flipped,
    one.finished_at,
    other.finished_at AS other_finished_at,
    one.id AS analysis_id,
    other.id AS other_analysis_id,
    recordings.id AS recording_id
FROM newest AS one
JOIN newest AS other
    ON other.recording_id = one.recording_id
    AND other.coverage = one.coverage
    AND other.model_id <> one.model_id
JOIN recordings ON recordings.id = one.recording_id
"""

_COUGHS_BY = """
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
                SELECT coalesce(0.5 * sum(events.bins), 0)
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

# View -> its SELECT statement, its comment, and the comment of each column. A view comes after those that it reads.
_VIEWS: dict[str, tuple[str, str, dict[str, str]]] = {
    "job_answers": (
        _JOB_ANSWERS,
        "One row for each job that a worker has received: the analysis that answers it, in any state. A job that "
        "is not here waits in the broker or is unknown.",
        {
            "job_id": "job id returned by enqueue",
            "state": "succeeded, failed or discarded: final; running or waiting: received, and not yet answered",
            "uri": "s3://bucket/key; null if the message could not be read",
            "bucket": "S3 bucket",
            "key": "S3 object key",
            "etag": "S3 entity tag of the content; empty if it is unknown because no object was found",
            "decision": "true: cough; false: no cough; null: no result",
            "bag_probability": "probability that the recording contains a cough, 0 to 1: the highest one of its bags",
            "threshold": "threshold used for the decision; cough if bag_probability is above it",
            "model": "name@version; in a failed row, the requested model if the worker does not serve it",
            "profile": "preprocessing profile",
            "coverage": "part of the recording that was analysed; head: the first 32 segments; full: all segments",
            "duration_s": "duration of the recording in seconds",
            "analyzed_s": "length of the analysed audio in seconds, from the start of the recording",
            "truncated": "true if the recording has audio after the last analysed segment",
            "events": "number of cough events; the table events has them",
            "cough_seconds": "length of all cough events together, in seconds",
            "warnings": "properties of the recording that make the result doubtful; empty if there are none",
            "error_class": "class of the error that made the job fail or wait; a stable identifier",
            "error_message": "description of the error",
            "attempts": "number of attempts; null if the message could not be read",
            "enqueued_at": "time at which the job was last enqueued, by the clock of the producer",
            "received_at": "time at which a worker first received the job",
            "finished_at": "time at which the analysis succeeded or failed; null if it is open",
            "analysis_id": "analyses.id; null if the message could not be read",
        },
    ),
    "cough_events": (
        _COUGH_EVENTS,
        "One row for each cough event of the results in the view current. A cough event is a bout of one or more "
        "coughs, not a single cough.",
        {
            "uri": "s3://bucket/key",
            "bucket": "S3 bucket",
            "key": "S3 object key",
            "event_index": "index of the event; the first is 0",
            "start_s": "start of the event in the recording, in seconds",
            "end_s": "end of the event in the recording, in seconds",
            "peak": "highest probability of a bin of the event, 0 to 1",
            "mean": "mean probability of the bins of the event, 0 to 1",
            "bins": "number of bins of half a second",
            "length_s": "length of the event in seconds",
            "starts_at": "time of day at which the event starts: recorded_at + start_s; null without recorded_at",
            "ends_at": "time of day at which the event ends: recorded_at + end_s; null without recorded_at",
            "recorded_at": "start of the recording, from metadata recorded_at; null if it is absent or not valid",
            "site": "place of the recording, from metadata site; null if it is absent or not valid",
            "subject": "pseudonym of the person, from metadata subject; null if it is absent or not valid",
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
    "coughs_by_hour": (
        _COUGHS_BY.format(unit="hour", kind="part.starts AT TIME ZONE 'UTC'"),
        "One row for each hour in UTC and each site: how much was recorded, and how many cough events. From the "
        "results in the view current. Results from before revision 0005 of the schema have no events and are "
        "omitted.",
        {
            "hour": "start of the hour in UTC, from recorded_at; null for recordings without recorded_at",
            "site": "place of the recording, from metadata site; null if it is absent or not valid",
            "recordings": (
                "number of recordings with audio in the hour, without silent ones; a recording that lasts over the "
                "end of the hour is counted in each"
            ),
            "silent_recordings": "number of recordings with the warning silent; no other column counts them",
            "recorded_hours": "length of the analysed audio in the hour, in hours",
            "events": "number of cough events that start in the hour; an event is a bout, not a single cough",
            "cough_seconds": "length of these events in seconds: 0.5 s for each bin",
            "events_per_recorded_hour": "events divided by recorded_hours; null if no audio was analysed",
        },
    ),
    "coughs_by_day": (
        _COUGHS_BY.format(unit="day", kind="part.starts::date"),
        "One row for each day in UTC and each site: how much was recorded, and how many cough events. From the "
        "results in the view current. Results from before revision 0005 of the schema have no events and are "
        "omitted.",
        {
            "day": "day in UTC, from recorded_at; null for recordings without recorded_at",
            "site": "place of the recording, from metadata site; null if it is absent or not valid",
            "recordings": (
                "number of recordings with audio in the day, without silent ones; a recording that lasts over the "
                "end of the day is counted in each"
            ),
            "silent_recordings": "number of recordings with the warning silent; no other column counts them",
            "recorded_hours": "length of the analysed audio in the day, in hours",
            "events": "number of cough events that start in the day; an event is a bout, not a single cough",
            "cough_seconds": "length of these events in seconds: 0.5 s for each bin",
            "events_per_recorded_hour": "events divided by recorded_hours; null if no audio was analysed",
        },
    ),
    "quality": (
        _QUALITY,
        "One row for each result in the view current: the levels and warnings of the recording. A silent recording"
        " does not show that nobody coughed.",
        {
            "uri": "s3://bucket/key",
            "bucket": "S3 bucket",
            "key": "S3 object key",
            "decision": "true: cough; false: no cough",
            "bag_probability": "probability that the recording contains a cough, 0 to 1",
            "silent": "true if the recording has no sound; null if it was not measured (before revision 0005)",
            "warnings": "properties of the recording that make the result doubtful; empty if there are none",
            "peak_dbfs": "largest absolute sample in decibels below full scale; null if every sample is 0",
            "rms_dbfs": "root mean square of the samples in decibels below full scale; null if every sample is 0",
            "clipped_share": "share of clipped samples, 0 to 1",
            "dc_offset": "largest absolute mean of a channel; full scale is 1",
            "duration_s": "duration of the recording in seconds",
            "analyzed_s": "length of the analysed audio in seconds, from the start of the recording",
            "rate_hz": "sample rate of the source in Hz",
            "channels": "number of channels of the source",
            "codec": "audio codec",
            "container": "container format, detected from the content",
            "recorded_at": "start of the recording, from metadata recorded_at; null if it is absent or not valid",
            "site": "place of the recording, from metadata site; null if it is absent or not valid",
            "subject": "pseudonym of the person, from metadata subject; null if it is absent or not valid",
            "model": "name@version",
            "created_at": "time of the first claim",
            "finished_at": "time at which the analysis ended",
            "analysis_id": "analyses.id",
            "recording_id": "recordings.id",
        },
    ),
    "failures_by_class": (
        _FAILURES_BY_CLASS,
        "One row for each error class of the failures in the view current.",
        {
            "error_class": "class of the error; a stable identifier",
            "failed": "number of failures in the state failed",
            "discarded": "number of failures in the state discarded",
            "first_finished_at": "time of the oldest of these failures",
            "last_finished_at": "time of the newest of these failures",
            "example_message": "description of one of these errors",
            "example_uri": "s3://bucket/key of one of these objects, the first in alphabetical order",
        },
    ),
    "model_pairs": (
        _MODEL_PAIRS,
        "One row for each ordered pair of models that have a result for the same recording and coverage: the "
        "newest result of each. Every pair is here twice, once in each order. Results under another profile than "
        "that of the manifest are omitted.",
        {
            "uri": "s3://bucket/key",
            "bucket": "S3 bucket",
            "key": "S3 object key",
            "etag": "S3 entity tag of the analysed content",
            "coverage": "part of the recording that both models analysed",
            "model": "name@version of the one model",
            "other_model": "name@version of the other model",
            "profile": "preprocessing profile of the one model",
            "other_profile": "preprocessing profile of the other model",
            "bag_probability": "probability that the recording contains a cough, 0 to 1, by the one model",
            "other_bag_probability": "probability by the other model",
            "bag_logit": "logit of bag_probability (natural logarithm of the odds)",
            "other_bag_logit": "logit of other_bag_probability",
            "threshold": "threshold used for decision",
            "other_threshold": "threshold used for other_decision",
            "decision": "true: cough; false: no cough, by the one model",
            "other_decision": "true: cough; false: no cough, by the other model",
            "flipped": "true if the two decisions differ",
            "finished_at": "time at which the analysis with the one model ended",
            "other_finished_at": "time at which the analysis with the other model ended",
            "analysis_id": "analyses.id of the one model",
            "other_analysis_id": "analyses.id of the other model",
            "recording_id": "recordings.id",
        },
    ),
}

# Column of recordings and of the view current -> its comment.
_FACTS = {
    "recorded_at": "start of the recording, from metadata recorded_at; null if it is absent or not valid",
    "site": "place of the recording, from metadata site; null if it is absent or not valid",
    "subject": "pseudonym of the person, from metadata subject; null if it is absent or not valid",
}


def upgrade() -> None:
    for name, (kind, expression) in _FUNCTIONS.items():
        op.get_bind().exec_driver_sql(
            f"CREATE FUNCTION tussis_{name}(metadata jsonb) RETURNS {kind} LANGUAGE sql IMMUTABLE PARALLEL SAFE "
            f"AS $function$ SELECT {expression} $function$"
        )
    # One statement, so that the rows are written once.
    added = (
        f"ADD COLUMN {name} {kind} GENERATED ALWAYS AS (tussis_{name}(metadata)) STORED"
        for name, (kind, _) in _FUNCTIONS.items()
    )
    op.execute(f"ALTER TABLE recordings {', '.join(added)}")
    _comment_columns("recordings", _FACTS)
    op.create_index(op.f("recordings_recorded_at_idx"), "recordings", ["recorded_at"])
    op.create_index(op.f("analyses_finished_at_idx"), "analyses", ["finished_at"])
    # Replaced and not dropped, so that it keeps its comments and the rights of the analysts.
    _create_view("current", _CURRENT)
    _comment_columns("current", _FACTS)
    for name, (select, comment, columns) in _VIEWS.items():
        _create_view(name, select)
        _comment("VIEW", name, comment)
        _comment_columns(name, columns)


def downgrade() -> None:
    for name in reversed(_VIEWS):
        op.execute(f"DROP VIEW {name}")
    saved = {name: _comments_of(name) for name in ("current_segments", "current")}
    for name in saved:
        op.execute(f"DROP VIEW {name}")
    _create_view("current", _CURRENT_BEFORE)
    _create_view("current_segments", _CURRENT_SEGMENTS)
    for name, (comment, columns) in saved.items():
        _comment("VIEW", name, comment)
        _comment_columns(name, {column: text for column, text in columns.items() if column not in _FACTS})
    op.drop_index(op.f("analyses_finished_at_idx"), "analyses")
    for name in _FUNCTIONS:
        op.drop_column("recordings", name)
        op.execute(f"DROP FUNCTION tussis_{name}(jsonb)")


def _create_view(name: str, select: str) -> None:
    # Not as sa.text: the statements have colons that are no parameters.
    op.get_bind().exec_driver_sql(f"CREATE OR REPLACE VIEW {name} AS {select}")


def _comments_of(view: str) -> tuple[str, dict[str, str]]:
    """The comment of a view, and the comment of each column."""
    columns = op.get_bind().execute(
        sa.text(
            "SELECT attname, col_description(attrelid, attnum) FROM pg_attribute "
            "WHERE attrelid = CAST(:view AS regclass) AND attnum > 0"
        ),
        {"view": view},
    )
    comment = op.get_bind().scalar(
        sa.text("SELECT obj_description(CAST(:view AS regclass), 'pg_class')"), {"view": view}
    )
    return comment or "", {name: text or "" for name, text in columns}


def _comment_columns(view: str, comments: dict[str, str]) -> None:
    for column, comment in comments.items():
        _comment("COLUMN", f"{view}.{column}", comment)


def _comment(what: str, name: str, comment: str) -> None:
    # COMMENT takes no parameters, so the text is part of the statement.
    literal = "'" + comment.replace("'", "''") + "'"
    op.get_bind().exec_driver_sql(f"COMMENT ON {what} {name} IS {literal}")
