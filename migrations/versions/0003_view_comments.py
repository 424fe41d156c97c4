"""Comments in plain words, and a comment on every column of the views.

Revision: 0003
After: 0002
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Table or view -> its comment before and after.
_RELATIONS: dict[str, tuple[str, str]] = {
    "TABLE dead_letters": (
        "Messages that could not be read, and so belong to no recording.",
        "One row for each message that could not be read and therefore belongs to no recording.",
    ),
    "TABLE models": ("The models that workers have served.", "One row for each model that a worker has served."),
    "TABLE recordings": (
        "One row for each content of each object: another entity tag is another recording.",
        ("One row for each content of an object in S3. The same key with another entity tag is another recording."),
    ),
    "TABLE analyses": (
        "One row for each question asked of a recording (model, profile, coverage), and its answer.",
        "One row for each analysis: one run of one model and profile on one recording, with its outcome.",
    ),
    "TABLE attempts": (
        "Every attempt at an analysis, also those that a crash ended.",
        "One row for each attempt at an analysis, including attempts that crashed.",
    ),
    "TABLE bags": (
        "What the model scored at once: a run of segments. One row for each analysis for now.",
        ("One row for each bag: consecutive segments that the model scores together. Coverage head has one bag."),
    ),
    "TABLE jobs": (
        "Which analysis answers a job. Several jobs may share one.",
        "One row for each job, with the analysis that answers it. Several jobs can share one analysis.",
    ),
    "TABLE segments": (
        "One row for each two-second segment of a succeeded analysis.",
        "One row for each segment of two seconds in a succeeded analysis.",
    ),
    "VIEW analyses_newest": (
        "Of each recording, model, profile and coverage the newest analysis, in whatever state it is.",
        "The newest analysis of each combination of recording, model, profile and coverage, in any state.",
    ),
    "VIEW current": (
        (
            "One row for each bucket and key: the newest answer that is final (a result or a failure), "
            "leaving out analyses whose job asked for another profile than that of the model. A failure that "
            "tells of a job and not of the object (object_changed, model_not_served, job_moved) hides no "
            "other answer."
        ),
        (
            "One row for each bucket and key: the newest result or failure. Analyses whose job requested "
            "another profile than the manifest are omitted. A failure of the job and not of the object "
            "(object_changed, model_not_served, job_moved) is shown only if the object has no other result or "
            "failure."
        ),
    ),
    "VIEW current_segments": (
        "The segments of the results in the view current, one row each.",
        "One row for each segment of the results in the view current.",
    ),
}

# Table or view -> column -> its comment before and after. None: no comment.
_COLUMNS: dict[str, dict[str, tuple[str | None, str]]] = {
    "dead_letters": {
        "id": (None, "primary key"),
        "raw_sha256": (
            "SHA-256 of the whole message, lower-case hex",
            "SHA-256 of the complete message, in lower-case hexadecimal digits",
        ),
        "raw": (
            "the message as it came, cut at 65536 characters",
            "the message as it was received, limited to 65536 characters",
        ),
        "job_id": (
            "what stood where a job's id belongs, if anything did",
            "value of the field job_id in the message; null if there is none",
        ),
        "error_message": ("what is wrong with it", "description of the error"),
        "received_at": ("when it came first", "time at which the message was first received"),
        "last_received_at": ("when it came last", "time at which the message was last received"),
        "deliveries": ("how often it came", "number of times the message was received"),
        "ended_job": (
            "the message was the one that the ledger held for job_id: the job ended with it",
            "true if the ledger held this message for job_id; the message then ended the job",
        ),
    },
    "models": {
        "id": (None, "primary key"),
        "sha256": (
            "SHA-256 of the ONNX file, lower-case hex",
            "SHA-256 of the ONNX file, in lower-case hexadecimal digits",
        ),
        "profile": ("preprocessing profile that the manifest names", "preprocessing profile in the manifest"),
        "threshold": (
            "cough above this bag probability; what the manifest last said",
            "threshold in the most recent manifest; the decision is cough if the bag probability is above it",
        ),
        "provenance": ("where the model comes from, in words", "origin of the model, as text"),
        "parent": (
            "the model this one was made from (quantised, specialised), if any",
            "name@version of the model from which this model was made; null if there is none",
        ),
        "first_seen_at": ("first start of a worker with it", "time at which a worker first started with this model"),
    },
    "recordings": {
        "id": (None, "primary key"),
        "key": ("S3 object key, as it is (not percent-encoded)", "S3 object key, not percent-encoded"),
        "version_id": (
            "S3 version id; null where the bucket keeps no versions or none was seen",
            "S3 version id; null if the bucket has no versions or the version is unknown",
        ),
        "etag": (
            "S3 entity tag without quotes; '' when no object was ever seen",
            "S3 entity tag without quotes; empty if it is unknown because no object was found",
        ),
        "size_bytes": ("size of the object, bytes", "size of the object in bytes"),
        "duration_s": ("length of the decoded audio, seconds", "duration of the decoded audio in seconds"),
        "rate_hz": ("sample rate of the source, Hz", "sample rate of the source in Hz"),
        "channels": ("channels of the source", "number of channels of the source"),
        "codec": ("audio codec, as the decoder names it", "audio codec, as named by the decoder"),
        "container": ("container format, sniffed from the bytes", "container format, detected from the content"),
        "decoder": (
            "the decoder that read it last; see analyses.decoder for each answer's",
            "decoder of the most recent analysis; analyses.decoder has the decoder of each analysis",
        ),
        "metadata": (
            "upstream's own words: the metadata of the latest message that had any",
            "metadata of the most recent message that had any, as JSON",
        ),
        "created_at": ("when the row was made", "time at which the row was created"),
        "updated_at": ("when the row last changed", "time at which the row last changed"),
    },
    "analyses": {
        "id": (None, "primary key"),
        "created_at": ("when the first attempt claimed it", "time of the first claim"),
        "model_id": (
            "models.id; null when refused before a model",
            "models.id; null if the job failed before a model was known",
        ),
        "model_requested": (
            "the model that the message named, only where no worker serves it",
            "model named in the message, only if the worker does not serve it",
        ),
        "profile": (
            "preprocessing profile; '' when refused before one was known",
            "preprocessing profile; empty if the job failed before a profile was known",
        ),
        "profile_overridden": (
            "the job asked for another profile than the model's manifest: left out of the view current",
            "true if the job requested another profile than the manifest; the view current omits such rows",
        ),
        "coverage": (
            "what was analysed; head: the first 32 segments, in one bag",
            "part of the recording that was analysed; head: the first 32 segments, in one bag",
        ),
        "forced_by": (
            "'' or the id of the job that asked for an analysis beside the old ones (again)",
            "id of the job that requested an additional analysis (again); otherwise empty",
        ),
        "job_id": (
            "the job that claimed it last; jobs has them all",
            "id of the job that last claimed this analysis; the table jobs has all of them",
        ),
        "attempt_token": (
            "token of the newest attempt: only its holder may finish",
            "token of the newest attempt; only the attempt with this token can complete the analysis",
        ),
        "bag_probability": (
            "probability that the recording holds a cough, 0 to 1",
            "probability that the recording contains a cough, 0 to 1",
        ),
        "bag_logit": (
            "the same as a logit (natural logarithm of the odds)",
            "logit of bag_probability (natural logarithm of the odds)",
        ),
        "decision": (
            "true: cough, that is bag_probability > threshold",
            "true: cough (bag_probability > threshold); false: no cough",
        ),
        "threshold": ("the threshold that the decision used", "threshold used for the decision"),
        "segments": ("segments analysed", "number of analysed segments"),
        "segments_total": ("segments before the cap of 32", "number of segments before the limit of 32"),
        "analyzed_s": (
            "audio that was heard, seconds from the start",
            "length of the analysed audio in seconds, from the start of the recording",
        ),
        "truncated": (
            "audio lies beyond the last analysed segment",
            "true if the recording has audio after the last analysed segment",
        ),
        "attempts": (
            "attempts so far, refusals included",
            "number of attempts; a failure that was recorded without a claim counts as one",
        ),
        "first_attempt": (
            "number of the first attempt since the analysis was last taken up again",
            "number of the first attempt since the analysis was created or last reopened",
        ),
        "error_class": (
            "why it failed, or why it waits: a stable word to group by",
            "class of the error that made the analysis fail or wait; a stable identifier",
        ),
        "error_message": ("the same in a sentence", "description of the error"),
        "timings_ms": (
            "stage -> milliseconds, of the attempt that ended it",
            "duration of each stage of the last attempt in milliseconds, as JSON",
        ),
        "worker": ("worker of the newest attempt", "name of the worker of the newest attempt"),
        "decoder": ("the decoder that gave this analysis its samples", "decoder used for this analysis"),
        "enqueued_at": (
            "when the job was enqueued (the producer's clock)",
            "time at which the job was enqueued, by the clock of the producer",
        ),
        "finished_at": (
            "when it succeeded or failed",
            "time at which the analysis succeeded or failed; null if it is open",
        ),
    },
    "attempts": {
        "number": ("1 is the first", "number of the attempt; the first is 1"),
        "token": ("what the attempt shows to finish", "token that the attempt needs to complete the analysis"),
        "worker": ("the worker that made it", "name of the worker"),
        "alone": (
            "ran with no other recording in its process: its crash counts",
            "true if the process worked on no other recording; only such an attempt counts when it crashes",
        ),
        "started_at": ("when it claimed the analysis", "time at which the attempt claimed the analysis"),
        "ended_at": (
            "when it ended; for vanished ones, when that was noticed; null: it still runs",
            "time at which the attempt ended, or at which its crash was detected; null: still running",
        ),
        "outcome": (
            "succeeded, failed, transient, handed_back, superseded or vanished; null: it still runs",
            "succeeded, failed, transient, handed_back, superseded or vanished (crashed); null: still running",
        ),
        "error_class": (
            "the error that ended it, a stable word",
            "class of the error that ended the attempt; a stable identifier",
        ),
        "error_message": ("the same in a sentence", "description of the error"),
        "lease_expires_at": (
            "until when the attempt holds its analysis; its worker renews it while the attempt lives",
            "time until which the attempt holds the analysis; the worker renews it while the attempt runs",
        ),
    },
    "bags": {
        "bag_index": ("0 is the first; coverage head has one bag", "index of the bag in the analysis; the first is 0"),
        "start_s": ("start in the recording, seconds", "start of the bag in the recording, in seconds"),
        "end_s": (
            "end of the audio in the bag, seconds (without padding)",
            "end of the audio in the bag, in seconds, without padding",
        ),
        "probability": (
            "probability of a cough in the bag, 0 to 1",
            "probability that the bag contains a cough, 0 to 1",
        ),
        "logit": ("the same as a logit", "logit of probability (natural logarithm of the odds)"),
        "segments": ("segments in the bag", "number of segments in the bag"),
    },
    "jobs": {
        "job_id": ("the id that enqueue returned", "job id returned by enqueue"),
        "analysis_id": (
            "analyses.id: the analysis that answers this job",
            "analyses.id of the analysis that answers this job",
        ),
        "enqueued_at": (
            "when the job was enqueued, the last time (producer's clock)",
            "time at which the job was last enqueued, by the clock of the producer",
        ),
        "received_at": ("when a worker first had it", "time at which a worker first received the job"),
    },
    "segments": {
        "segment_index": ("0 is the first; counted within the bag", "index of the segment in its bag; the first is 0"),
        "analysis_created_at": (
            "analyses.created_at, in the key so that the table can be partitioned by it",
            "analyses.created_at; part of the key so that the table can be partitioned by it",
        ),
        "start_s": ("start in the recording, seconds", "start of the segment in the recording, in seconds"),
        "end_s": (
            "end, seconds; the last segments' reach into their padding",
            "end of the segment in seconds, including padding after the end of the recording",
        ),
        "probability": (
            "probability of a cough in the segment, 0 to 1",
            "probability that the segment contains a cough, 0 to 1",
        ),
        "logit": ("the same as a logit", "logit of probability (natural logarithm of the odds)"),
    },
    "current": {
        "uri": (None, "s3://bucket/key"),
        "bucket": (None, "S3 bucket"),
        "key": (None, "S3 object key"),
        "etag": (None, "S3 entity tag of the analysed content; empty if it is unknown because no object was found"),
        "version_id": (None, "S3 version id; null if the bucket has no versions or the version is unknown"),
        "state": (None, "succeeded, failed or discarded"),
        "decision": (None, "true: cough; false: no cough; null: no result"),
        "bag_probability": (None, "probability that the recording contains a cough, 0 to 1"),
        "bag_logit": (None, "logit of bag_probability (natural logarithm of the odds)"),
        "threshold": (None, "threshold used for the decision; cough if bag_probability is above it"),
        "model": (None, "name@version; in a failed row, the requested model if the worker does not serve it"),
        "profile": (None, "preprocessing profile"),
        "coverage": (None, "part of the recording that was analysed; head: the first 32 segments"),
        "segments": (None, "number of analysed segments"),
        "segments_total": (None, "number of segments before the limit of 32"),
        "duration_s": (None, "duration of the recording in seconds"),
        "analyzed_s": (None, "length of the analysed audio in seconds, from the start of the recording"),
        "truncated": (None, "true if the recording has audio after the last analysed segment"),
        "rate_hz": (None, "sample rate of the source in Hz"),
        "channels": (None, "number of channels of the source"),
        "codec": (None, "audio codec"),
        "container": (None, "container format, detected from the content"),
        "decoder": (None, "decoder used; another decoder can give slightly different samples"),
        "size_bytes": (None, "size of the object in bytes"),
        "error_class": (None, "class of the error; a stable identifier"),
        "error_message": (None, "description of the error"),
        "attempts": (None, "number of attempts"),
        "enqueued_at": (None, "time at which the job was enqueued, by the clock of the producer"),
        "started_at": (None, "start of the last attempt"),
        "finished_at": (None, "time at which the analysis succeeded or failed"),
        "created_at": (None, "time of the first claim"),
        "metadata": (None, "metadata of the most recent message that had any, as JSON"),
        "job_id": (None, "id of the job that last claimed this analysis"),
        "analysis_id": (None, "analyses.id"),
        "recording_id": (None, "recordings.id"),
    },
    "current_segments": {
        "uri": (None, "s3://bucket/key"),
        "bucket": (None, "S3 bucket"),
        "key": (None, "S3 object key"),
        "bag_index": (None, "index of the bag; 0, because coverage head has one bag"),
        "segment_index": (None, "index of the segment in its bag; the first is 0"),
        "start_s": (None, "start of the segment in the recording, in seconds"),
        "end_s": (None, "end of the segment in seconds, including padding after the end of the recording"),
        "probability": (None, "probability that the segment contains a cough, 0 to 1"),
        "logit": (None, "logit of probability (natural logarithm of the odds)"),
        "decision": (None, "decision for the recording"),
        "bag_probability": (None, "probability that the recording contains a cough, 0 to 1"),
        "threshold": (None, "threshold for bag_probability; it does not apply to segments"),
        "model": (None, "name@version"),
        "profile": (None, "preprocessing profile"),
        "finished_at": (None, "time at which the analysis ended"),
        "analysis_id": (None, "analyses.id"),
    },
}

# The view analyses_newest has the columns of analyses, with their comments.
_NEWEST: dict[str, tuple[str | None, str]] = {name: (None, after) for name, (_, after) in _COLUMNS["analyses"].items()}
_NEWEST |= {
    "recording_id": (None, "recordings.id"),
    "state": (None, "running, waiting, succeeded, failed or discarded"),
    "device": (None, "cpu or gpu"),
    "started_at": (None, "start of the newest attempt"),
}


def _comment(what: str, name: str, comment: str | None) -> None:
    # COMMENT takes no parameters, so the text is part of the statement.
    literal = "NULL" if comment is None else "'" + comment.replace("'", "''") + "'"
    op.get_bind().exec_driver_sql(f"COMMENT ON {what} {name} IS {literal}")


def _set(index: int) -> None:
    for relation, comments in _RELATIONS.items():
        what, name = relation.split()
        _comment(what, name, comments[index])
    for table, columns in (_COLUMNS | {"analyses_newest": _NEWEST}).items():
        for column, both in columns.items():
            _comment("COLUMN", f"{table}.{column}", both[index])


def upgrade() -> None:
    _set(1)


def downgrade() -> None:
    _set(0)
