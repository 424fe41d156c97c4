"""Reads outcomes of jobs from the broker: by the ids of jobs, without a group of readers."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from tussis.shared.broker import broker_errors
from tussis.shared.errors import JobUnknown, OutcomeUnreadable, WaitTimeout
from tussis.shared.messages import is_job_id
from tussis.shared.outcomes import JobOutcome, parse_outcome
from tussis.shared.queues import OPEN_KEY, OUTCOMES_KEY, outcome_key
from tussis.shared.uris import shown

#: The fields of an entry of the stream: it has one of them.
FIELD, BATCH_FIELD = b"outcome", b"batch"
#: The longest wait of one command, milliseconds. It must be well below the socket's timeout.
BLOCK_MS = 2000
#: Entries of one read, and ids of one look.
_READ, _LOOK = 200, 500
#: Seconds between two looks at the jobs that are still awaited. A look finds a job whose entry has left the stream.
_LOOK_EVERY_S = 5.0


@dataclass(frozen=True)
class JobStatus:
    """What the broker knows of a job: when it was enqueued, if it is open, and its last outcome, if that is kept."""

    open_since: float | None
    """Seconds since the epoch; None if the job is not open."""
    outcome: JobOutcome | None
    """The newest outcome. If the job is open, it belongs to an earlier message."""


@dataclass(frozen=True)
class Entry:
    """An entry of the stream: its id, and the JSON of an outcome, or of the end of a batch. One of them is empty."""

    entry_id: str
    text: bytes
    batch: bytes = b""


class OutcomeReader:
    """Reads outcomes, over one Redis client. It needs no right to write.

    Every method raises :class:`BrokerUnavailable` or :class:`BrokerRefused`.
    """

    def __init__(self, client: redis.Redis, where: str = "the broker") -> None:
        self._client = client
        self._where = where

    def statuses(self, job_ids: Iterable[str]) -> dict[str, JobStatus]:
        """Job id -> what the broker knows of the job. Both parts of a status are of the same moment.

        Raises :class:`OutcomeUnreadable`.
        """
        found: dict[str, JobStatus] = {}
        ids = list(job_ids)
        for first in range(0, len(ids), _LOOK):
            chunk = ids[first : first + _LOOK]
            with broker_errors(self._where):
                pipe = self._client.pipeline(transaction=True)
                pipe.zmscore(OPEN_KEY, chunk)
                pipe.mget([outcome_key(job_id) for job_id in chunk])
                scores, texts = pipe.execute()
            for job_id, score, text in zip(chunk, scores, texts, strict=True):
                found[job_id] = JobStatus(
                    None if score is None else float(score), None if text is None else parse_outcome(text)
                )
        return found

    def wait_each(self, job_ids: Iterable[str], timeout_s: float | None = None) -> Generator[JobOutcome, None, None]:
        """The outcome of each job, as the jobs end. The outcome of a job that has ended already is its kept one.

        ``timeout_s`` None waits without a limit. Raises :class:`WaitTimeout` with the ids of the open jobs, and
        :class:`JobUnknown` for ids of jobs that are not open and whose outcome is not kept: before the first outcome
        if that is known by then. Raises :class:`OutcomeUnreadable` for an outcome of one of the jobs.
        """
        ends = None if timeout_s is None else time.monotonic() + timeout_s
        awaited = dict.fromkeys(job_ids)
        wrong = [job_id for job_id in awaited if not is_job_id(job_id)]
        if wrong:
            raise JobUnknown(f"{shown(wrong[0])} is not a job id: use the UUID that `enqueue` returned", wrong)
        # Noted before the look: what is told after the look is behind this position.
        position = self.last_id()
        known = self._ended(awaited)
        looked = time.monotonic()
        while awaited:
            for job_id, outcome in known.items():
                del awaited[job_id]
                yield outcome
            known = {}
            if not awaited:
                return
            left_s = None if ends is None else ends - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise WaitTimeout(_still_open(awaited, timeout_s or 0.0), list(awaited))
            for entry in self.read_after(position, BLOCK_MS if left_s is None else min(BLOCK_MS, left_s * 1000)):
                position = entry.entry_id
                told = _readable(entry)
                if told is not None and told.job_id in awaited:
                    del awaited[told.job_id]
                    yield told
            if time.monotonic() >= looked + _LOOK_EVERY_S:
                position, known = self.last_id(), self._ended(awaited)
                looked = time.monotonic()

    def last_id(self) -> str:
        """The id of the newest entry of the stream, or the id before all others."""
        with broker_errors(self._where):
            newest = self._client.xrevrange(OUTCOMES_KEY, count=1)
        return _text(newest[0][0]) if newest else "0-0"

    def read_after(self, position: str, block_ms: float) -> list[Entry]:
        """The next entries behind a position. Waits up to ``block_ms`` for the first one; empty if none came."""
        with broker_errors(self._where):
            streams: Any = self._client.xread({OUTCOMES_KEY: position}, count=_READ, block=max(1, int(block_ms)))
        return list(entries_of(streams))

    def wait_after(self, position: str, block_ms: float) -> None:
        """Wait until the stream has an entry behind the position, for ``block_ms`` at most."""
        with broker_errors(self._where):
            self._client.xread({OUTCOMES_KEY: position}, count=1, block=max(1, int(block_ms)))

    def _ended(self, awaited: Iterable[str]) -> dict[str, JobOutcome]:
        """The outcomes of those jobs that are not open. Raises :class:`JobUnknown` if one of them has none."""
        ended: dict[str, JobOutcome] = {}
        unknown: list[str] = []
        for job_id, status in self.statuses(awaited).items():
            if status.open_since is None:
                if status.outcome is None:
                    unknown.append(job_id)
                else:
                    ended[job_id] = status.outcome
        if unknown:
            raise JobUnknown(
                f"{_named(unknown)}: not open, and no outcome is kept (TUSSIS_OUTCOME_TTL_S); check the id, or "
                "`tussis job` with access to the database",
                unknown,
            )
        return ended


def entries_of(streams: Any) -> Iterator[Entry]:
    """The entries in the reply of XREAD or XREADGROUP. An entry that was removed has no text."""
    for _, entries in streams or ():
        for entry_id, fields in entries:
            found = fields or {}
            yield Entry(_text(entry_id), found.get(FIELD, b""), found.get(BATCH_FIELD, b""))


def _readable(entry: Entry) -> JobOutcome | None:
    """The outcome, or None. An entry that a newer version wrote for another job must not end a wait."""
    try:
        return parse_outcome(entry.text)
    except OutcomeUnreadable:
        return None


def _still_open(awaited: Iterable[str], timeout_s: float) -> str:
    return f"{_named(list(awaited))}: still open after {timeout_s:g} s"


def _named(job_ids: Sequence[str]) -> str:
    """The first ids, and the number of the others."""
    named = ", ".join(job_ids[:3])
    return f"job {named}" if len(job_ids) == 1 else f"{len(job_ids)} jobs ({named}{' ...' if len(job_ids) > 3 else ''})"


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
