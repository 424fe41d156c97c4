"""The views, declared. They are an interface for analysts: ``docs/query.md`` documents their columns."""

from __future__ import annotations

_ANALYSES_NEWEST = """
SELECT DISTINCT ON (recording_id, model_id, model_requested, profile, coverage) *
FROM analyses
ORDER BY recording_id, model_id, model_requested, profile, coverage, created_at DESC, id DESC
"""

# bucket and key stand in DISTINCT ON, so a condition on them reaches the index below the view. A message that came late
# (for bytes that were replaced since, or a model that is gone) must not take the place of what is known of the object.
_CURRENT = """
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
    recordings.id AS recording_id
FROM analyses
JOIN recordings ON recordings.id = analyses.recording_id
LEFT JOIN models ON models.id = analyses.model_id
WHERE analyses.state IN ('succeeded', 'failed', 'discarded') AND NOT analyses.profile_overridden
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

#: Name -> (definition, comment), each after those it reads.
VIEWS: dict[str, tuple[str, str]] = {
    "analyses_newest": (
        _ANALYSES_NEWEST,
        "Of each recording, model, profile and coverage the newest analysis, in whatever state it is.",
    ),
    "current": (
        _CURRENT,
        "One row for each bucket and key: the newest answer that is final (a result or a failure), leaving out "
        "analyses whose job asked for another profile than that of the model. A failure that tells of a job and not "
        "of the object (object_changed, model_not_served, job_moved) hides no other answer.",
    ),
    "current_segments": (_CURRENT_SEGMENTS, "The segments of the results in the view current, one row each."),
}
