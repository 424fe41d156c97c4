"""Outcomes of jobs: made up, and read from the broker."""

from __future__ import annotations

import time
import uuid
from typing import Any

from tussis.shared.messages import Job
from tussis.shared.outcomes import EventSpan, JobOutcome, OutcomeAnswer, OutcomeState, SegmentScore, parse_outcome
from tussis.shared.queues import OUTCOMES_KEY


def told(client: Any) -> list[JobOutcome]:
    """The outcomes of jobs in the broker's stream, the oldest first."""
    entries = client.xrange(OUTCOMES_KEY)
    return [parse_outcome(fields[b"outcome"]) for _, fields in entries if b"outcome" in fields]


def a_job(**fields: object) -> Job:
    """A job with an id of its own."""
    known = {"job_id": str(uuid.uuid4()), "bucket": "clinic", "key": "ä.wav", "enqueued_at": time.time()}
    return Job(**(known | fields))  # type: ignore[arg-type]


def an_answer(segments: int = 2) -> OutcomeAnswer:
    """An answer with so many segments."""
    return OutcomeAnswer(
        decision=True,
        bag_probability=0.8123456716537476,
        threshold=0.5,
        model="tiny@1",
        profile="documented",
        coverage="head",
        duration_s=3.0,
        analyzed_s=2.5,
        truncated=False,
        cough_seconds=1.5,
        warnings=("quiet",),
        events_found=1,
        events=(EventSpan(0.5, 2.0, 0.9),),
        segments_scored=segments,
        segments=tuple(SegmentScore(index * 0.5, 0.25) for index in range(segments)),
    )


def succeeded(job: Job, **fields: object) -> JobOutcome:
    """The outcome of a job with an answer."""
    known = {"analysis_id": 7, "started_at": 1.5, "finished_at": 2.5, "answer": an_answer()}
    return JobOutcome(
        job_id=job.job_id,
        uri=job.uri,
        state=OutcomeState.SUCCEEDED,
        enqueued_at=job.enqueued_at,
        **(known | fields),  # type: ignore[arg-type]
    )


def failed(job: Job, error_class: str = "corrupt") -> JobOutcome:
    """The outcome of a job that failed."""
    return JobOutcome(
        job_id=job.job_id,
        uri=job.uri,
        state=OutcomeState.FAILED,
        enqueued_at=job.enqueued_at,
        analysis_id=8,
        error_class=error_class,
        error_message="why",
    )
