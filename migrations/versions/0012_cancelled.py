"""Cancelled jobs: the state ``cancelled`` of an analysis, and its place in the view ``current``.

Revision: 0012
After: 0011

The rows of analyses are read once, to check the new constraints, and not written again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# Do not change these definitions. Later revisions have their own.
_CURRENT = """
WITH shown AS NOT MATERIALIZED (
    SELECT
        analyses.*,
        {rank},
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
    WHERE analyses.state IN ({states})
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
            AND (better.{name}, better.model_rank, better.finished_at, better.id)
                > (analyses.{name}, analyses.model_rank, analyses.finished_at, analyses.id)
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
                    AND (own.{name}, own.finished_at, own.id)
                        > (newer.{name}, newer.finished_at, newer.id)
            )
    )
"""

_BEFORE = {
    "rank": (
        "(analyses.error_class IN ('object_changed', 'model_not_served', 'job_moved')) IS NOT TRUE AS of_the_object"
    ),
    "states": "'succeeded', 'failed', 'discarded'",
    "name": "of_the_object",
}
_AFTER = {
    "rank": (
        "CASE\n"
        "            WHEN analyses.state = 'cancelled' THEN 0\n"
        "            WHEN analyses.error_class IN ('object_changed', 'model_not_served', 'job_moved') THEN 1\n"
        "            ELSE 2\n"
        "        END AS about_the_object"
    ),
    "states": "'succeeded', 'failed', 'discarded', 'cancelled'",
    "name": "about_the_object",
}

_CURRENT_COMMENT = (
    "One row for each bucket and key: the result or failure by the active model, or else by the model that was active "
    "before it and has one. Of an object with several contents, the content with the newest answer counts. Answers of "
    "models that never were active and of the shadow model are omitted, and analyses whose job requested another "
    "profile or coverage than the manifest. A failure of the job and not of the object (object_changed, "
    "model_not_served, job_moved) is shown only if the object has no other result or failure"
)
_RECEIVED = "time at which a worker first received the job"
_FINISHED = "time at which the analysis succeeded or failed"
_FINISHED_NOW = "time at which the analysis succeeded, failed or was cancelled"
_JOB_ANSWERS = (
    "the analysis that answers it, in any state. A job that is not here waits in the broker, is one of the shadow "
    "model, or is unknown."
)

#: View -> its comment before and after.
_VIEW_COMMENTS = {
    "current": (
        f"{_CURRENT_COMMENT}.",
        f"{_CURRENT_COMMENT}, and a cancelled analysis only if the object has neither.",
    ),
    "job_answers": (
        f"One row for each job that a worker has received: {_JOB_ANSWERS}",
        f"One row for each job that a worker has received or that was cancelled: {_JOB_ANSWERS}",
    ),
}
#: Column -> its comment before and after. Those of analyses are also those of the view analyses_newest.
_COLUMN_COMMENTS = {
    "analyses": {
        "state": (
            "running, waiting, succeeded, failed or discarded",
            "running, waiting, succeeded, failed, discarded or cancelled",
        ),
        "forced_by": (
            "id of the job that requested an additional analysis (again); otherwise empty",
            "id of the job that requested an additional analysis (again); cancelled:ID if the job ID was cancelled "
            "before an attempt; otherwise empty",
        ),
        "attempts": (
            "number of attempts; a failure that was recorded without a claim counts as one",
            "number of attempts; a failure that was recorded without a claim counts as one; 0 if the job was cancelled "
            "before an attempt",
        ),
        "worker": (
            "name of the worker of the newest attempt",
            "name of the worker of the newest attempt; without one, who cancelled the job",
        ),
        "device": ("cpu or gpu", "cpu or gpu; also any if the job was cancelled before an attempt"),
        "started_at": ("start of the newest attempt", "start of the newest attempt; without one, finished_at"),
        "finished_at": (f"{_FINISHED}; null if it is open", f"{_FINISHED_NOW}; null if it is open"),
    },
    "jobs": {"received_at": (_RECEIVED, f"{_RECEIVED}, or at which it was cancelled before")},
    "current": {
        "state": ("succeeded, failed or discarded", "succeeded, failed, discarded or cancelled"),
        "finished_at": (_FINISHED, _FINISHED_NOW),
    },
    "job_answers": {
        "state": (
            "succeeded, failed or discarded: final; running or waiting: received, and not yet answered",
            "succeeded, failed, discarded or cancelled: final; running or waiting: received, and not yet answered",
        ),
        "received_at": (_RECEIVED, f"{_RECEIVED}, or at which it was cancelled before"),
        "finished_at": (f"{_FINISHED}; null if it is open", f"{_FINISHED_NOW}; null if it is open"),
    },
}


def upgrade() -> None:
    # One statement, so that the table is read once.
    op.execute(
        "ALTER TABLE analyses "
        "DROP CONSTRAINT analyses_state_check, "
        "DROP CONSTRAINT analyses_attempts_check, "
        "ADD CONSTRAINT analyses_state_check "
        "CHECK (state IN ('running', 'waiting', 'succeeded', 'failed', 'discarded', 'cancelled')), "
        "ADD CONSTRAINT analyses_attempts_check "
        "CHECK (first_attempt >= 1 AND attempts >= first_attempt - (state = 'cancelled')::integer), "
        "ADD CONSTRAINT analyses_cancelled_check CHECK "
        "(state <> 'cancelled' OR (finished_at IS NOT NULL AND num_nonnulls(error_class, error_message) = 0))"
    )
    _create_current(_AFTER)
    _comments(1)


def downgrade() -> None:
    # A job that was cancelled before an attempt is unknown afterwards. The analysis of another one is set aside.
    op.execute("DELETE FROM analyses WHERE state = 'cancelled' AND starts_with(forced_by, 'cancelled:')")
    op.execute(
        "UPDATE analyses SET state = 'discarded', error_class = 'cancelled', error_message = 'the job was cancelled' "
        "WHERE state = 'cancelled'"
    )
    _create_current(_BEFORE)
    op.execute(
        "ALTER TABLE analyses "
        "DROP CONSTRAINT analyses_cancelled_check, "
        "DROP CONSTRAINT analyses_state_check, "
        "DROP CONSTRAINT analyses_attempts_check, "
        "ADD CONSTRAINT analyses_state_check "
        "CHECK (state IN ('running', 'waiting', 'succeeded', 'failed', 'discarded')), "
        "ADD CONSTRAINT analyses_attempts_check CHECK (attempts >= 1 AND first_attempt BETWEEN 1 AND attempts)"
    )
    _comments(0)


def _create_current(names: dict[str, str]) -> None:
    # Replaced and not dropped, so that it keeps its comments and the rights of the analysts. Not as sa.text: the
    # statement has colons that are no parameters.
    op.get_bind().exec_driver_sql(f"CREATE OR REPLACE VIEW current AS {_CURRENT.format(**names)}")


def _comments(which: int) -> None:
    """Write the comments of before (0) or after (1)."""
    for view, texts in _VIEW_COMMENTS.items():
        _comment("VIEW", view, texts[which])
    for table, columns in _COLUMN_COMMENTS.items():
        for column, texts in columns.items():
            for name in (table, "analyses_newest") if table == "analyses" else (table,):
                _comment("COLUMN", f"{name}.{column}", texts[which])


def _comment(what: str, name: str, comment: str) -> None:
    # COMMENT takes no parameters, so the text is part of the statement.
    literal = "'" + comment.replace("'", "''") + "'"
    op.get_bind().execute(sa.text(f"COMMENT ON {what} {name} IS {literal}".replace(":", "\\:")))
