"""What to check: failures, the quality of recordings, and the differences between models."""

from __future__ import annotations

from typing import Final

from tussis.shared.store import upstream_facts
from tussis.shared.store.tables.analyses import analyses
from tussis.shared.store.views.view import View

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

# newest: of each recording, model and coverage, the newest result under the profile of the model.
_MODEL_PAIRS = """
WITH newest AS NOT MATERIALIZED (
    SELECT
        analyses.id,
        analyses.recording_id,
        analyses.model_id,
        analyses.profile,
        analyses.coverage,
        analyses.bag_probability,
        analyses.bag_logit,
        analyses.decision,
        analyses.threshold,
        analyses.finished_at,
        models.name || '@' || models.version AS model
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

#: Columns with the comments that they have in the table ``analyses``.
_MEASURES = ("warnings", "peak_dbfs", "rms_dbfs", "clipped_share", "dc_offset")

VIEWS: Final[dict[str, View]] = {
    "quality": View(
        _QUALITY,
        "One row for each result in the view current: the levels and warnings of the recording. A silent recording "
        "does not show that nobody coughed.",
        {
            "uri": "s3://bucket/key",
            "bucket": "S3 bucket",
            "key": "S3 object key",
            "decision": "true: cough; false: no cough",
            "bag_probability": "probability that the recording contains a cough, 0 to 1",
            "silent": "true if the recording has no sound; null if it was not measured (before revision 0005)",
            **{name: analyses.c[name].comment or "" for name in _MEASURES},
            "duration_s": "duration of the recording in seconds",
            "analyzed_s": "length of the analysed audio in seconds, from the start of the recording",
            "rate_hz": "sample rate of the source in Hz",
            "channels": "number of channels of the source",
            "codec": "audio codec",
            "container": "container format, detected from the content",
            **upstream_facts.COMMENTS,
            "model": "name@version",
            "created_at": "time of the first claim",
            "finished_at": "time at which the analysis ended",
            "analysis_id": "analyses.id",
            "recording_id": "recordings.id",
        },
    ),
    "failures_by_class": View(
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
    "model_pairs": View(
        _MODEL_PAIRS,
        "One row for each ordered pair of models that have a result for the same recording and coverage: the newest "
        "result of each, also of the shadow model. Every pair is here twice, once in each order. Results under another "
        "profile than that of the manifest are omitted.",
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
