"""The answers: the newest one of each object, with its segments, and the newest of each model."""

from __future__ import annotations

from typing import Final

from tussis.shared.store import upstream_facts
from tussis.shared.store.tables.analyses import analyses
from tussis.shared.store.views.view import View

_ANALYSES_NEWEST = """
SELECT DISTINCT ON (recording_id, model_id, model_requested, profile, coverage) *
FROM analyses
WHERE NOT shadow
ORDER BY recording_id, model_id, model_requested, profile, coverage, created_at DESC, id DESC
"""

_ACTIVE_MODEL = """
SELECT
    models.id AS model_id,
    models.name,
    models.version,
    EXISTS (SELECT FROM model_activations) AS explicit,
    models.active_at AS since
FROM models
WHERE models.active_at IS NOT NULL
ORDER BY models.active_at DESC, models.id DESC
LIMIT 1
"""

# Of an object with several contents, the content with the newest answer counts: a model that is activated again must
# not bring back the answer for bytes that were replaced meanwhile. Of this content, the view shows the answer of the
# model that became active last, and of several answers of that model the newest. A failure without a model counts as
# one of the active model.
#
# A failure of the job ranks below every result and below every failure of the object. A late message (for replaced
# bytes or for a model that is no longer served) must not hide the result for the object. A cancelled analysis ranks
# below every answer. A model that never was active answers only jobs that name it. Its answers are not here.
#
# With NOT EXISTS, PostgreSQL can use an index for any condition of a query: on bucket and key, on created_at, on state.
# With DISTINCT ON it could for bucket and key only. The arrays of models are computed once for each query. Joins with
# models in their place take twice as long to plan.
_CURRENT = """
WITH shown AS NOT MATERIALIZED (
    SELECT
        analyses.*,
        CASE
            WHEN analyses.state = 'cancelled' THEN 0
            WHEN analyses.error_class IN ('object_changed', 'model_not_served', 'job_moved') THEN 1
            ELSE 2
        END AS about_the_object,
        coalesce(
            array_position(
                ARRAY(
                    SELECT models.id
                    FROM models
                    WHERE models.active_at IS NOT NULL
                    ORDER BY models.active_at, models.id
                ),
                analyses.model_id
            ),
            (SELECT count(*) FROM models WHERE models.active_at IS NOT NULL)
        ) AS model_rank
    FROM analyses
    WHERE analyses.state IN ('succeeded', 'failed', 'discarded', 'cancelled')
        AND NOT analyses.shadow
        AND NOT analyses.profile_overridden
        AND NOT analyses.coverage_overridden
        AND (
            analyses.model_id IS NULL
            OR analyses.model_id = ANY (ARRAY(SELECT models.id FROM models WHERE models.active_at IS NOT NULL))
        )
)
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
FROM shown AS analyses
JOIN recordings ON recordings.id = analyses.recording_id
LEFT JOIN models ON models.id = analyses.model_id
WHERE NOT EXISTS (
        SELECT
        FROM shown AS better
        WHERE better.recording_id = analyses.recording_id
            AND better.id <> analyses.id
            AND (better.about_the_object, better.model_rank, better.finished_at, better.id)
                > (analyses.about_the_object, analyses.model_rank, analyses.finished_at, analyses.id)
    )
    AND NOT EXISTS (
        SELECT
        FROM recordings AS other
        JOIN shown AS newer ON newer.recording_id = other.id
        WHERE other.bucket = recordings.bucket
            AND other.key = recordings.key
            AND other.id <> recordings.id
            AND NOT EXISTS (
                SELECT
                FROM shown AS own
                WHERE own.recording_id = recordings.id
                    AND (own.about_the_object, own.finished_at, own.id)
                        > (newer.about_the_object, newer.finished_at, newer.id)
            )
    )
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

#: Columns of the view ``current`` with the comments that they have in the table ``analyses``.
_MEASURES = ("events", "cough_seconds", "peak_dbfs", "rms_dbfs", "clipped_share", "dc_offset", "warnings")

#: Name -> view. A view comes after the views that it reads.
VIEWS: Final[dict[str, View]] = {
    "active_model": View(
        _ACTIVE_MODEL,
        "One row: the active model, which answers the jobs that name no model. tussis models activate chooses it. "
        "Before its first use, the newest registered model that workers serve is active.",
        {
            "model_id": "models.id",
            "name": "name in the manifest",
            "version": "version in the manifest",
            "explicit": "true if tussis models activate chose it",
            "since": "time at which it became the active model",
        },
    ),
    "analyses_newest": View(
        _ANALYSES_NEWEST,
        "The newest analysis of each combination of recording, model, profile and coverage, in any state. "
        "Analyses of the shadow model are omitted.",
        {column.name: column.comment or "" for column in analyses.columns},
    ),
    "current": View(
        _CURRENT,
        "One row for each bucket and key: the result or failure by the active model, or else by the model that was "
        "active before it and has one. Of an object with several contents, the content with the newest answer counts. "
        "Answers of models that never were active and of the shadow model are omitted, and analyses whose job "
        "requested another profile or coverage than the manifest. A failure of the job and not of the object "
        "(object_changed, model_not_served, job_moved) is shown only if the object has no other result or failure, and "
        "a cancelled analysis only if the object has neither.",
        {
            "uri": "s3://bucket/key",
            "bucket": "S3 bucket",
            "key": "S3 object key",
            "etag": "S3 entity tag of the analysed content; empty if it is unknown because no object was found",
            "version_id": "S3 version id; null if the bucket has no versions or the version is unknown",
            "state": "succeeded, failed, discarded or cancelled",
            "decision": "true: cough; false: no cough; null: no result",
            "bag_probability": "probability that the recording contains a cough, 0 to 1: the highest one of its bags",
            "bag_logit": "logit of bag_probability (natural logarithm of the odds)",
            "threshold": "threshold used for the decision; cough if bag_probability is above it",
            "model": "name@version; in a failed row, the requested model if the worker does not serve it",
            "profile": "preprocessing profile",
            "coverage": "part of the recording that was analysed; head: the first 32 segments; full: all segments",
            "segments": "number of analysed segments",
            "segments_total": "number of segments of the whole recording; coverage head analyses the first 32",
            "duration_s": "duration of the recording in seconds",
            "analyzed_s": "length of the analysed audio in seconds, from the start of the recording",
            "truncated": "true if the recording has audio after the last analysed segment",
            "rate_hz": "sample rate of the source in Hz",
            "channels": "number of channels of the source",
            "codec": "audio codec",
            "container": "container format, detected from the content",
            "decoder": "decoder used; another decoder can give slightly different samples",
            "size_bytes": "size of the object in bytes",
            "error_class": "class of the error; a stable identifier",
            "error_message": "description of the error",
            "attempts": "number of attempts",
            "enqueued_at": "time at which the job was enqueued, by the clock of the producer",
            "started_at": "start of the last attempt",
            "finished_at": "time at which the analysis succeeded, failed or was cancelled",
            "created_at": "time of the first claim",
            "metadata": "metadata of the most recent message that had any, as JSON",
            "job_id": "id of the job that last claimed this analysis",
            "analysis_id": "analyses.id",
            "recording_id": "recordings.id",
            **{name: analyses.c[name].comment or "" for name in _MEASURES},
            **upstream_facts.COMMENTS,
        },
    ),
    "current_segments": View(
        _CURRENT_SEGMENTS,
        "One row for each segment of the results in the view current.",
        {
            "uri": "s3://bucket/key",
            "bucket": "S3 bucket",
            "key": "S3 object key",
            "bag_index": "index of the bag; the first is 0, and every bag but the last has 32 segments",
            "segment_index": "index of the segment in its bag; the first is 0",
            "start_s": "start of the segment in the recording, in seconds",
            "end_s": "end of the segment in seconds, including padding after the end of the recording",
            "probability": "probability that the segment contains a cough, 0 to 1",
            "logit": "logit of probability (natural logarithm of the odds)",
            "decision": "decision for the recording",
            "bag_probability": "probability that the recording contains a cough, 0 to 1",
            "threshold": "threshold for bag_probability; it does not apply to segments",
            "model": "name@version",
            "profile": "preprocessing profile",
            "finished_at": "time at which the analysis ended",
            "analysis_id": "analyses.id",
        },
    ),
}
