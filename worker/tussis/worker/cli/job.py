"""``tussis job``: one job's state and result."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from tussis.shared.text import printable, probability

if TYPE_CHECKING:
    from tussis.shared.messages import Job
    from tussis.shared.store.records import DeadLetter, JobAnswer


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def job(job_id: str, as_json: bool) -> None:
    """Show where the job with this ID stands, and its result or failure.

    A job is open (waiting in its queue, in work, or deferred until its next attempt) until it has one of the two, and
    open again when it is enqueued anew after a failure. The exit status is 0 for a job that is open or succeeded, 1 for
    one that failed or is unknown.
    """
    from tussis.shared.broker import connect, redact
    from tussis.shared.errors import JobUnknown
    from tussis.shared.ledger import Ledger
    from tussis.shared.settings import load_settings
    from tussis.shared.store.repository import Store
    from tussis.shared.uris import shown

    if not job_id.isascii():
        raise JobUnknown(f"{shown(job_id)} is no job id: an id is a UUID, as `tussis enqueue` printed it")
    settings = load_settings()
    url = settings.need_broker()
    ledger = Ledger(connect(url), redact(url))
    # The broker first: a job that ends between the two looks is then found in the store.
    opened, due = ledger.find(job_id), ledger.due_at(job_id)
    store = Store.connect(settings.need_database(), pool_size=1)
    try:
        store.verify_schema()
        answer = store.job(job_id)
        letter = None if opened or answer else store.dead_letter_of(job_id)
    finally:
        store.close()
    if letter is not None:
        told = unreadable(job_id, letter)
    elif opened is None and answer is None:
        raise JobUnknown(f"no job {shown(job_id)} is open, and none has a result: is the id right?")
    else:
        told = describe(job_id, opened, due, answer)
    if as_json:
        click.echo(json.dumps(told))
    else:
        _print(told)
    if told["state"] == "failed":
        click.get_current_context().exit(1)


def unreadable(job_id: str, letter: DeadLetter) -> dict[str, Any]:
    """What to tell about a job whose message could not be read and named no object, as JSON."""
    return {
        "job_id": job_id,
        "state": "failed",
        "error": {"class": letter.error_class, "message": letter.error_message},
        "finished_at": letter.received_at.isoformat(),
    }


def describe(job_id: str, opened: Job | None, due: float | None, answer: JobAnswer | None) -> dict[str, Any]:
    """What to tell about a job, as JSON. ``state`` is open, running, waiting, succeeded, failed or discarded."""
    from tussis.shared.states import AnalysisState
    from tussis.shared.store.records import finite
    from tussis.shared.store.transitions import moment

    told: dict[str, Any] = {"job_id": job_id}
    if opened is not None:
        told |= {
            "uri": opened.uri,
            "state": "open",
            "enqueued_at": _iso(opened.enqueued_at),
            "age_s": round(max(0.0, time.time() - opened.enqueued_at), 3),
            "priority": opened.priority,
            "queue": opened.queue,
            "due_at": None if due is None else _iso(due),
        }
    if answer is None:
        return told
    analysis = answer.analysis
    enqueued_anew = opened is not None and moment(opened.enqueued_at) > answer.enqueued_at
    if enqueued_anew and analysis.state in (AnalysisState.FAILED, AnalysisState.DISCARDED):
        # The failure is that of an earlier message; whether it stands, a worker says when it has this one.
        state, enqueued_at = told["state"], told["enqueued_at"]
    else:
        state, enqueued_at = analysis.state.value, answer.enqueued_at.isoformat()
    told |= {
        "uri": analysis.uri,
        "state": state,
        "enqueued_at": enqueued_at,
        "analysis_id": analysis.id,
        "attempts": analysis.attempts,
        "model": analysis.model,
        "profile": analysis.profile,
    }
    if analysis.error_class is not None:
        told["error"] = {"class": analysis.error_class, "message": analysis.error_message}
    if analysis.bag_probability is not None:
        told |= {
            "decision": analysis.decision,
            "bag_probability": analysis.bag_probability,
            "threshold": analysis.threshold,
            "duration_s": analysis.duration_s,
            "analyzed_s": analysis.analyzed_s,
            "truncated": analysis.truncated,
            "finished_at": None if analysis.finished_at is None else analysis.finished_at.isoformat(),
            "segments": [
                {
                    "index": segment.index,
                    "start_s": segment.start_s,
                    "end_s": segment.end_s,
                    "probability": segment.probability,
                    "logit": finite(segment.logit),
                }
                for segment in answer.segments
            ],
        }
    return told


def _print(told: dict[str, Any]) -> None:
    segments = told.pop("segments", [])
    error = told.pop("error", None)
    if "bag_probability" in told:
        told["bag_probability"] = probability(told["bag_probability"], told["threshold"])
    width = max(len(name) for name in told)
    for name, value in told.items():
        if value is not None:
            click.echo(f"{name:<{width}}  {_shown(name, value)}")
    if error is not None:
        click.echo(printable(f"{'error':<{width}}  {error['class']}: {error['message']}"))
    for segment in segments:
        click.echo(
            f"  segment {segment['index']:>2}  {segment['start_s']:>5.1f} to {segment['end_s']:>5.1f} s"
            f"  probability {probability(segment['probability'])}"
        )


def _shown(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    # Seconds to the millisecond; a threshold as it is, since the answer depends on each of its digits.
    return str(round(value, 3)) if isinstance(value, float) and name.endswith("_s") else printable(str(value))


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
