"""A job as JSON: the report of ``tussis job --json`` and of the gateway."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tussis.shared.messages import Job
    from tussis.shared.outcomes import JobOutcome
    from tussis.shared.store.records import BagProgress, DeadLetter, JobAnswer


def unreadable(job_id: str, letter: DeadLetter) -> dict[str, Any]:
    """A job whose message could not be read and named no object, as JSON."""
    return {
        "job_id": job_id,
        "state": "failed",
        "error": {"class": letter.error_class, "message": letter.error_message},
        "finished_at": letter.received_at.isoformat(),
    }


def describe(
    job_id: str,
    opened: Job | None,
    due: float | None,
    answer: JobAnswer | None,
    progress: BagProgress | None = None,
) -> dict[str, Any]:
    """A job as JSON. ``state`` is open, running, waiting, succeeded, failed, discarded or cancelled."""
    from tussis.shared.states import TERMINAL, AnalysisState
    from tussis.shared.store.records import finite, segments_deleted
    from tussis.shared.store.transitions import moment

    report: dict[str, Any] = {"job_id": job_id}
    if opened is not None:
        report |= {
            "uri": opened.uri,
            "state": "open",
            "enqueued_at": as_iso(opened.enqueued_at),
            "age_s": round(max(0.0, time.time() - opened.enqueued_at), 3),
            "priority": opened.priority,
            "queue": opened.queue,
            "due_at": None if due is None else as_iso(due),
        }
    if answer is None:
        return report
    analysis = answer.analysis
    enqueued_again = opened is not None and moment(opened.enqueued_at) > answer.enqueued_at
    if enqueued_again and analysis.state in TERMINAL - {AnalysisState.SUCCEEDED}:
        # The failure or the cancellation belongs to an earlier message. The new message has not reached a worker yet.
        state, enqueued_at = report["state"], report["enqueued_at"]
    else:
        state, enqueued_at = analysis.state.value, answer.enqueued_at.isoformat()
    report |= {
        "uri": analysis.uri,
        "state": state,
        "enqueued_at": enqueued_at,
        "analysis_id": analysis.id,
        "attempts": analysis.attempts,
        "model": analysis.model,
        "profile": analysis.profile,
        "coverage": analysis.coverage,
        "software": None if analysis.software is None else asdict(analysis.software),
    }
    if progress is not None:
        report["progress"] = {"bags_done": progress.bags_done, "bags_total": progress.bags_total}
    if analysis.error_class is not None:
        report["error"] = {"class": analysis.error_class, "message": analysis.error_message}
    if analysis.bag_probability is not None:
        report |= {
            "decision": analysis.decision,
            "bag_probability": analysis.bag_probability,
            "threshold": analysis.threshold,
            "duration_s": analysis.duration_s,
            "analyzed_s": analysis.analyzed_s,
            "truncated": analysis.truncated,
            "events": analysis.events,
            "cough_seconds": analysis.cough_seconds,
            "peak_dbfs": analysis.peak_dbfs,
            "rms_dbfs": analysis.rms_dbfs,
            "clipped_share": analysis.clipped_share,
            "dc_offset": analysis.dc_offset,
            "warnings": list(analysis.warnings or ()),
            "finished_at": None if analysis.finished_at is None else analysis.finished_at.isoformat(),
            "segments": None
            if segments_deleted(analysis, answer.segments)
            else [
                {
                    "bag_index": segment.bag_index,
                    "index": segment.index,
                    "start_s": segment.start_s,
                    "end_s": segment.end_s,
                    "probability": segment.probability,
                    "logit": finite(segment.logit),
                }
                for segment in answer.segments
            ],
        }
    return report


def of_outcome(outcome: JobOutcome) -> dict[str, Any]:
    """A job that has ended as JSON, from its outcome. The names are those of a report from the database."""
    report: dict[str, Any] = {"job_id": outcome.job_id, "uri": outcome.uri, "state": outcome.state.value}
    if outcome.enqueued_at is not None:
        report["enqueued_at"] = as_iso(outcome.enqueued_at)
    report["analysis_id"] = outcome.analysis_id
    if outcome.error_class is not None:
        report["error"] = {"class": outcome.error_class, "message": outcome.error_message}
    if (answer := outcome.answer) is not None:
        report |= {
            "model": answer.model,
            "profile": answer.profile,
            "coverage": answer.coverage,
            "decision": answer.decision,
            "bag_probability": answer.bag_probability,
            "threshold": answer.threshold,
            "duration_s": answer.duration_s,
            "analyzed_s": answer.analyzed_s,
            "truncated": answer.truncated,
            "events": answer.events_found,
            "cough_seconds": answer.cough_seconds,
            "warnings": list(answer.warnings),
            "segments_scored": answer.segments_scored,
            "segments": [
                {"start_s": segment.start_s, "probability": segment.probability} for segment in answer.segments
            ],
        }
    if outcome.finished_at is not None:
        report["finished_at"] = as_iso(outcome.finished_at)
    return report


def as_iso(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()
