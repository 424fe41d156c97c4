"""The report of ``tussis job`` about one job, as JSON and as text."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from tussis.shared.text import printable, probability

if TYPE_CHECKING:
    from tussis.shared.messages import Job
    from tussis.shared.store.records import BagProgress, DeadLetter, JobAnswer

#: Length of a segment, seconds.
SEGMENT_S = 2.0


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


def print_report(report: dict[str, Any]) -> None:
    """Print a report as text, one line for each fact."""
    segments = report.pop("segments", [])
    error = report.pop("error", None)
    if "bag_probability" in report:
        report["bag_probability"] = probability(report["bag_probability"], report["threshold"])
    width = max(len(name) for name in report)
    for name, value in report.items():
        if value is not None and value != []:
            click.echo(f"{name:<{width}}  {_shown(name, value)}")
    if error is not None:
        click.echo(printable(f"{'error':<{width}}  {error['class']}: {error['message']}"))
    if segments is None:
        click.echo(f"{'segments':<{width}}  deleted by `tussis retain`")
    for number, segment in enumerate(segments or ()):
        end_s = segment.get("end_s", segment["start_s"] + SEGMENT_S)  # an outcome does not have it
        click.echo(
            f"  segment {number:>2}  {segment['start_s']:>5.1f} to {end_s:>5.1f} s"
            f"  probability {probability(segment['probability'])}"
        )


def _shown(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "software" and isinstance(value, dict):
        return printable(
            f"Tussis {value['tussis_version']}, onnxruntime {value['onnxruntime_version']}, torch "
            f"{value['torch_version']}, torchaudio {value['torchaudio_version']}, {value['decoder_library']}; "
            f"{value['provider']}, {value['graph']} graph, {value['processor'] or 'processor unknown'}"
        )
    if isinstance(value, dict):  # the progress
        return f"{value['bags_done']} of {value['bags_total']} bags"
    if isinstance(value, list):  # the warnings
        return ", ".join(value)
    if isinstance(value, float) and name.endswith("_dbfs"):
        return f"{value:.1f}"
    if isinstance(value, float) and name in ("clipped_share", "dc_offset"):
        return f"{value:.4f}"
    # Seconds to the millisecond; a threshold as it is, since the answer depends on each of its digits.
    return (
        str(round(value, 3))
        if isinstance(value, float) and name.endswith(("_s", "_seconds"))
        else printable(str(value))
    )


def as_iso(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()
