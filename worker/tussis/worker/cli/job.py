"""``tussis job``: one job's state and result."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from tussis.shared.text import printable, probability

if TYPE_CHECKING:
    from tussis.shared.messages import Job
    from tussis.shared.store.records import BagProgress, DeadLetter, JobAnswer


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--reproduce", is_flag=True, help="Repeat the analysis here and compare it with the stored one.")
@click.option(
    "--model",
    help="With --reproduce: path or s3:// URI of the model of the analysis.  [default: found by its SHA-256]",
)
def job(job_id: str, as_json: bool, reproduce: bool, model: str | None) -> None:
    """Show the state of one job, and its result or failure.

    ID is the job id that `tussis enqueue` printed. A job is open while it waits in its queue, is in flight, or is
    deferred until its next attempt. After a failure it is open again if it is enqueued again. A job whose result
    `tussis retain` deleted is unknown. If it deleted only the segments, the output says so ("segments": null).

    With --reproduce the same bytes are fetched again and analysed on this machine, with the model, the profile and the
    coverage of the row. It needs the extra cpu and access to the object store, and writes nothing. It prints the values
    of the row beside those found here, the versions, and a verdict in the last line.

    The exit status is 1 if the job failed or is unknown, otherwise 0. With --reproduce it is 0 if both agree within the
    tolerances (probabilities within 1e-3, the same decision and the same facts, or the same failure), otherwise 1.
    """
    from tussis.shared.broker import connect, redact
    from tussis.shared.errors import JobUnknown
    from tussis.shared.ledger import Ledger
    from tussis.shared.settings import load_settings
    from tussis.shared.store.repository import Store
    from tussis.shared.uris import shown

    if not job_id.isascii():
        raise JobUnknown(f"{shown(job_id)} is not a job id: use the UUID that `tussis enqueue` printed")
    if model is not None and not reproduce:
        raise click.UsageError("--model needs --reproduce")
    settings = load_settings()
    url = settings.need_broker()
    ledger = Ledger(connect(url), redact(url))
    # Read the broker first: a job that ends between the two reads is then found in the store.
    opened, due = ledger.find(job_id), ledger.due_at(job_id)
    store = Store.connect(settings.need_database(), pool_size=1)
    try:
        store.verify_schema()
        answer = store.job(job_id)
        letter = None if opened or answer else store.dead_letter_of(job_id)
        progress = None if answer is None else store.bag_progress(answer.analysis.id)
    finally:
        store.close()
    if letter is not None:
        report = unreadable(job_id, letter)
    elif opened is None and answer is None:
        raise JobUnknown(f"no open job, result or failure has the job id {shown(job_id)}: check the id")
    else:
        report = describe(job_id, opened, due, answer, progress)
    if reproduce:
        from tussis.shared.errors import NotReproducible
        from tussis.worker.cli import job_reproduce

        if answer is None or report["state"] == "open":
            reason = "is open: wait for its result or failure"
            if letter is not None:
                reason = f"failed as {letter.error_class}: its message names no recording that was analysed"
            raise NotReproducible(f"job {printable(job_id)} {reason}")
        click.get_current_context().exit(0 if job_reproduce.reproduce(answer, model, settings, as_json=as_json) else 1)
    if as_json:
        click.echo(json.dumps(report))
    else:
        _print(report)
    if report["state"] == "failed":
        click.get_current_context().exit(1)


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
    """A job as JSON. ``state`` is open, running, waiting, succeeded, failed or discarded."""
    from tussis.shared.states import AnalysisState
    from tussis.shared.store.records import finite, segments_deleted
    from tussis.shared.store.transitions import moment

    report: dict[str, Any] = {"job_id": job_id}
    if opened is not None:
        report |= {
            "uri": opened.uri,
            "state": "open",
            "enqueued_at": _iso(opened.enqueued_at),
            "age_s": round(max(0.0, time.time() - opened.enqueued_at), 3),
            "priority": opened.priority,
            "queue": opened.queue,
            "due_at": None if due is None else _iso(due),
        }
    if answer is None:
        return report
    analysis = answer.analysis
    enqueued_again = opened is not None and moment(opened.enqueued_at) > answer.enqueued_at
    if enqueued_again and analysis.state in (AnalysisState.FAILED, AnalysisState.DISCARDED):
        # The failure belongs to an earlier message. The new message has not reached a worker yet.
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


def _print(report: dict[str, Any]) -> None:
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
        click.echo(
            f"  segment {number:>2}  {segment['start_s']:>5.1f} to {segment['end_s']:>5.1f} s"
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


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
