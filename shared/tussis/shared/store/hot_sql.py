"""The SQL of the two transactions that every recording needs: the first claim of a new job, and the result.

Each is one statement (see :mod:`tussis.shared.store.one_statement`). States come from :mod:`tussis.shared.states`, and
the UPDATE of a state names the from-states of its table. Tests compare the rows of :data:`CLAIM_FIRST` with those of
the ordinary transaction in :mod:`tussis.shared.store.claims`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from tussis.shared.dsp.constants import MAX_SEGMENTS
from tussis.shared.states import AnalysisState, AttemptOutcome, from_states
from tussis.shared.store.one_statement import Statement
from tussis.shared.store.shadow_sql import SHADOW_MODEL
from tussis.shared.store.tables.models import software

_SOFTWARE = tuple(column.name for column in software.columns if column.name != "id")
_SOFTWARE_COLUMNS = ", ".join(_SOFTWARE)
_SOFTWARE_VALUES = ", ".join(f"%({name})s::text" for name in _SOFTWARE)


def _quoted(values: Iterable[StrEnum]) -> str:
    return ", ".join(f"'{value.value}'" for value in values)


_RUNNING = _quoted([AnalysisState.RUNNING])
_SUCCEEDED = _quoted([AnalysisState.SUCCEEDED])
_BEFORE_SUCCEEDED = _quoted(from_states(AnalysisState.SUCCEEDED))
_ATTEMPT_SUCCEEDED = _quoted([AttemptOutcome.SUCCEEDED])

#: Claims a new analysis for a new job. No row: the store has the job or the analysis already, or not the model; or the
#: job names no model, and another one is active. Raises UniqueViolation if another claim of the job was committed since
#: the statement began: a claim by a worker with another model, which makes another analysis.
#:
#: Writes in the order of the locks: recording, then analysis. Of two concurrent claims of one analysis, the second
#: waits for the lock on the row of the recording and then finds the analysis of the first.
#:
#: The last column is the shadow model, if it analyses this recording too.
CLAIM_FIRST = Statement(f"""
WITH recording AS (
    INSERT INTO recordings (bucket, key, etag, version_id, size_bytes, metadata)
    SELECT
        %(bucket)s::text,
        %(key)s::text,
        %(etag)s::text,
        %(version_id)s::text,
        %(size_bytes)s::bigint,
        %(metadata)s::jsonb
    WHERE NOT EXISTS (SELECT FROM jobs WHERE jobs.job_id = %(job_id)s::uuid)
        AND (
            %(names_model)s
            OR %(model_sha256)s::text = (
                SELECT models.sha256
                FROM models
                WHERE models.active_at IS NOT NULL
                ORDER BY models.active_at DESC, models.id DESC
                LIMIT 1
            )
        )
    ON CONFLICT (bucket, key, etag) DO UPDATE SET
        version_id = coalesce(excluded.version_id, recordings.version_id),
        size_bytes = coalesce(excluded.size_bytes, recordings.size_bytes),
        metadata = CASE WHEN excluded.metadata = '{{}}' THEN recordings.metadata ELSE excluded.metadata END,
        updated_at = now()
    RETURNING id
),
analysis AS (
    INSERT INTO analyses (
        recording_id, model_id, state, attempts, attempt_token, started_at, profile, profile_overridden, coverage,
        coverage_overridden, forced_by, job_id, threshold, worker, device, enqueued_at, shadow
    )
    SELECT
        recording.id,
        models.id,
        {_RUNNING},
        1,
        %(token)s::uuid,
        now(),
        %(profile)s::text,
        %(profile_overridden)s,
        %(coverage)s::text,
        %(coverage_overridden)s,
        %(forced_by)s::text,
        %(job_id)s::uuid,
        %(threshold)s,
        %(worker)s::text,
        %(device)s::text,
        %(enqueued_at)s::timestamptz,
        %(shadow)s
    FROM recording, models
    WHERE models.sha256 = %(model_sha256)s::text
        AND models.name = %(model_name)s::text
        AND models.version = %(model_version)s::text
    ON CONFLICT ON CONSTRAINT analyses_identity_key DO NOTHING
    RETURNING id, created_at
),
attempt AS (
    INSERT INTO attempts (analysis_id, number, lease_expires_at, token, worker, exclusive)
    SELECT
        analysis.id,
        1,
        clock_timestamp() + make_interval(secs => %(lease_s)s),
        %(token)s::uuid,
        %(worker)s::text,
        %(exclusive)s
    FROM analysis
),
job AS (
    INSERT INTO jobs (analysis_id, job_id, enqueued_at)
    SELECT analysis.id, %(job_id)s::uuid, %(enqueued_at)s::timestamptz
    FROM analysis
)
SELECT id, created_at, ({SHADOW_MODEL}) AS shadow_model FROM analysis
""")

#: Stores the result of a claim. No row: the claim is not held, and nothing was written.
#:
#: Locks the recording before the analysis, in the same order as a claim. ``succeeded`` reads the row of ``described``,
#: and the later clauses read the row of ``succeeded``. If another claim takes over at the same time, the statement
#: waits for the transaction of that claim. It then reads the row of the analysis again, finds another token and writes
#: no result. Bags, segments and events are one INSERT each, with array parameters of any length.
#:
#: ``IS TRUE`` makes the planner find the analysis by its id and not by the index on the state. Every recording leaves
#: an entry ``running`` in that index, which stays while an older transaction is open. Each result would read them all.
#:
#: ``known`` finds the row of the software, and ``added`` inserts it once. It follows ``described``, so that its lock
#: comes after that of the recording. Of two statements that insert the same row at once, the second waits and gets the
#: row of the first. Without software (NULL) neither has a row.
COMPLETE = Statement(f"""
WITH described AS (
    UPDATE recordings SET
        size_bytes = %(size_bytes)s::bigint,
        duration_s = %(duration_s)s,
        rate_hz = %(rate_hz)s::integer,
        channels = %(channels)s::integer,
        codec = %(codec)s::text,
        container = %(container)s::text,
        decoder = %(decoder)s::text,
        updated_at = now()
    FROM analyses
    WHERE recordings.id = analyses.recording_id
        AND analyses.id = %(analysis_id)s::bigint
        AND analyses.attempt_token = %(token)s::uuid
    RETURNING recordings.id
),
known AS (
    SELECT software.id FROM software WHERE ({_SOFTWARE_COLUMNS}) = ({_SOFTWARE_VALUES})
),
added AS (
    INSERT INTO software ({_SOFTWARE_COLUMNS})
    SELECT {_SOFTWARE_VALUES}
    FROM described
    WHERE NOT EXISTS (SELECT FROM known) AND num_nulls({_SOFTWARE_VALUES}) = 0
    ON CONFLICT ON CONSTRAINT software_key DO UPDATE SET graph = excluded.graph
    RETURNING software.id
),
succeeded AS (
    UPDATE analyses SET
        state = {_SUCCEEDED},
        bag_probability = %(bag_probability)s,
        bag_logit = %(bag_logit)s,
        decision = %(decision)s,
        threshold = %(threshold)s,
        segments = %(segments)s::integer,
        segments_total = %(segments_total)s::integer,
        analyzed_s = %(analyzed_s)s,
        truncated = %(truncated)s,
        events = %(events)s::integer,
        cough_seconds = %(cough_seconds)s,
        peak_dbfs = %(peak_dbfs)s::double precision,
        rms_dbfs = %(rms_dbfs)s::double precision,
        clipped_share = %(clipped_share)s,
        dc_offset = %(dc_offset)s,
        warnings = %(warnings)s::text[],
        decoder = %(decoder)s::text,
        timings_ms = %(timings_ms)s::jsonb,
        software_id = (SELECT known.id FROM known UNION ALL SELECT added.id FROM added),
        error_class = NULL,
        error_message = NULL,
        finished_at = now()
    FROM described
    WHERE analyses.id = %(analysis_id)s::bigint
        AND (analyses.state IN ({_BEFORE_SUCCEEDED})) IS TRUE
        AND analyses.attempt_token = %(token)s::uuid
        AND analyses.recording_id = described.id
    RETURNING analyses.id, analyses.created_at
),
bag AS (
    INSERT INTO bags (analysis_id, bag_index, start_s, end_s, probability, logit, segments)
    SELECT
        succeeded.id,
        scores.number - 1,
        scores.start_s,
        scores.end_s,
        scores.probability,
        scores.logit,
        scores.segments
    FROM succeeded, unnest(
        %(bag_start_s)s::double precision[],
        %(bag_end_s)s::double precision[],
        %(bag_probabilities)s::double precision[],
        %(bag_logits)s::double precision[],
        %(bag_segments)s::integer[]
    ) WITH ORDINALITY AS scores (start_s, end_s, probability, logit, segments, number)
),
scored AS (
    INSERT INTO segments (
        analysis_id, bag_index, segment_index, analysis_created_at, start_s, end_s, probability, logit
    )
    SELECT
        succeeded.id,
        (scores.number - 1) / {MAX_SEGMENTS},
        (scores.number - 1) %% {MAX_SEGMENTS},
        succeeded.created_at,
        scores.start_s,
        scores.end_s,
        scores.probability,
        scores.logit
    FROM succeeded, unnest(
        %(start_s)s::double precision[],
        %(end_s)s::double precision[],
        %(probability)s::double precision[],
        %(logit)s::double precision[]
    ) WITH ORDINALITY AS scores (start_s, end_s, probability, logit, number)
),
coughed AS (
    INSERT INTO events (analysis_id, event_index, start_s, end_s, peak, mean, bins)
    SELECT
        succeeded.id,
        found.number - 1,
        found.start_s,
        found.end_s,
        found.peak,
        found.mean,
        found.bins
    FROM succeeded, unnest(
        %(event_start_s)s::double precision[],
        %(event_end_s)s::double precision[],
        %(event_peak)s::double precision[],
        %(event_mean)s::double precision[],
        %(event_bins)s::integer[]
    ) WITH ORDINALITY AS found (start_s, end_s, peak, mean, bins, number)
),
finished AS (
    DELETE FROM bag_progress USING succeeded WHERE bag_progress.analysis_id = succeeded.id
),
ended AS (
    UPDATE attempts SET ended_at = now(), outcome = {_ATTEMPT_SUCCEEDED}
    FROM succeeded
    WHERE attempts.token = %(token)s::uuid
        AND attempts.outcome IS NULL
        AND attempts.analysis_id = succeeded.id
)
SELECT id FROM succeeded
""")
