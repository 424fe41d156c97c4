"""What it costs to tell the outcome of a job when it is closed: CPU time of the worker and of the broker."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import redis

from tussis.shared.events import CoughEvent
from tussis.shared.ledger import Ledger
from tussis.shared.messages import Job
from tussis.shared.outcomes import JobOutcome, OutcomeState
from tussis.shared.store.job_outcomes import answer_of_result
from tussis.shared.store.records import BagScores, Result, SegmentScores

#: Jobs of one block. The blocks with and without outcomes take turns.
_BLOCK = 50
#: Segments of a recording: those of one bag.
_SEGMENTS = 32


@dataclass(frozen=True)
class Closing:
    """CPU seconds to close one job."""

    worker_s: float
    broker_s: float

    @property
    def total_s(self) -> float:
        return self.worker_s + self.broker_s


def measure_closing(client: redis.Redis, broker_cpu_s: Callable[[], float], jobs: int) -> tuple[Closing, Closing]:
    """Close ``jobs`` jobs without and ``jobs`` jobs with an outcome, one by one, as a worker does."""
    ledger = Ledger(client)
    result = _result()
    spent = {False: [0.0, 0.0], True: [0.0, 0.0]}
    blocks = max(1, jobs // _BLOCK)
    for block in range(2 * blocks):
        told = block % 4 in (1, 2)
        opened = [_job() for _ in range(_BLOCK)]
        ledger.open_many(opened)
        cpu, broker = time.process_time(), broker_cpu_s()
        for job in opened:
            ledger.close(job, _outcome(job, result) if told else None)
        spent[told][0] += time.process_time() - cpu
        spent[told][1] += broker_cpu_s() - broker
    without, with_outcome = (
        Closing(*(seconds / (blocks * _BLOCK) for seconds in spent[told])) for told in (False, True)
    )
    return without, with_outcome


def _outcome(job: Job, result: Result) -> JobOutcome:
    return JobOutcome(
        job_id=job.job_id,
        uri=job.uri,
        state=OutcomeState.SUCCEEDED,
        enqueued_at=job.enqueued_at,
        started_at=time.time(),
        finished_at=time.time(),
        analysis_id=1,
        answer=answer_of_result(result, "tiny@1", "documented", "head"),
    )


def _job() -> Job:
    return Job(
        job_id=str(uuid.uuid4()),
        bucket="clinic",
        key=f"2026/11/{uuid.uuid4()}.wav",
        etag="9b2cf535f27731c974343645a3985328",
        enqueued_at=time.time(),
    )


def _result() -> Result:
    starts = [0.5 * index for index in range(_SEGMENTS)]
    scores = [1 / (index + 1.1) for index in range(_SEGMENTS)]
    return Result(
        size_bytes=560_044,
        duration_s=17.5,
        rate_hz=16_000,
        channels=1,
        codec="pcm_s16le",
        container="wav",
        decoder="soundfile",
        bag_probability=0.8123456716537476,
        bag_logit=1.46,
        decision=True,
        threshold=0.5,
        bags=BagScores([0.0], [17.5], [0.8123456716537476], [1.46], [_SEGMENTS]),
        segments=SegmentScores(starts, [start + 2 for start in starts], scores, scores),
        segments_total=_SEGMENTS,
        analyzed_s=17.5,
        truncated=False,
        events=[CoughEvent(0.5, 2.0, 0.9, 0.7, 3), CoughEvent(4.5, 5.5, 0.8, 0.6, 2)],
        peak_dbfs=-3.0,
        rms_dbfs=-20.0,
        clipped_share=0.0,
        dc_offset=0.0,
        warnings=(),
        timings_ms={},
    )
