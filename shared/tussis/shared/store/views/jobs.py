"""The answer of each job."""

from __future__ import annotations

from typing import Final

from tussis.shared.store.tables.analyses import analyses
from tussis.shared.store.views.view import View

# The last part has the jobs whose message could not be read: they have no analysis.
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
JOIN analyses ON analyses.id = jobs.analysis_id AND NOT analyses.shadow
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

VIEWS: Final[dict[str, View]] = {
    "job_answers": View(
        _JOB_ANSWERS,
        "One row for each job that a worker has received or that was cancelled: the analysis that answers it, in any "
        "state. A job that is not here waits in the broker, is one of the shadow model, or is unknown.",
        {
            "job_id": "job id returned by enqueue",
            "state": (
                "succeeded, failed, discarded or cancelled: final; running or waiting: received, and not yet answered"
            ),
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
            "events": analyses.c.events.comment or "",
            "cough_seconds": analyses.c.cough_seconds.comment or "",
            "warnings": analyses.c.warnings.comment or "",
            "error_class": "class of the error that made the job fail or wait; a stable identifier",
            "error_message": "description of the error",
            "attempts": "number of attempts; null if the message could not be read",
            "enqueued_at": "time at which the job was last enqueued, by the clock of the producer",
            "received_at": "time at which a worker first received the job, or at which it was cancelled before",
            "finished_at": "time at which the analysis succeeded, failed or was cancelled; null if it is open",
            "analysis_id": "analyses.id; null if the message could not be read",
        },
    ),
}
