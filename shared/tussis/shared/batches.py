"""Batches: jobs that upstream enqueues under one name, to follow their progress. ``docs/enqueue.md`` describes them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from tussis.shared.batch_scripts import MINUTES, MOST_BATCHES
from tussis.shared.broker import broker_errors
from tussis.shared.broker_functions import call
from tussis.shared.errors import BatchUnknown, OutcomeUnreadable, TooManyBatches, WaitTimeout
from tussis.shared.messages import check_batch
from tussis.shared.outcomes import OUTCOME_VERSION
from tussis.shared.queues import BATCHES_KEY, BATCHES_TO_TELL_KEY, batch_key
from tussis.shared.uris import shown

#: Minutes over which the rate is measured: the first of these spans with enough ends, or the last one.
_SPANS = (1, 10, MINUTES - 1)
_ENOUGH = 20
#: Seconds between two looks of :meth:`Batches.wait`.
_POLL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class BatchStatus:
    """A batch at one moment. Times are in seconds since the epoch, by the clock of the broker.

    ``total`` is ``succeeded`` + ``failed`` + ``cancelled`` + ``open``. A job that was enqueued again after its end
    counts again.
    """

    name: str
    total: int
    succeeded: int
    failed: int
    cancelled: int
    open: int
    opened_at: float
    closed_at: float | None
    """When its producer closed it: no further job is expected. None: it is not closed."""
    done_at: float | None
    rate_per_s: float | None
    """Jobs that ended in a second, without cancelled ones, in the last ``rate_span_s``. None: none ended in the last
    hour, or none is open."""
    rate_span_s: float | None
    left_s: float | None
    """Estimated seconds until the jobs that are open have ended, at this rate. None: there is no rate."""

    @property
    def done(self) -> bool:
        """Whether it is closed and no job of it is open."""
        return self.closed_at is not None and self.open == 0

    @property
    def state(self) -> str:
        """``open`` (its producer may add jobs), ``closed`` or ``done``."""
        if self.done:
            return "done"
        return "open" if self.closed_at is None else "closed"

    def to_dict(self) -> dict[str, Any]:
        """The status as a JSON object."""
        fields = dict(vars(self))
        return {"batch": fields.pop("name"), "state": self.state, **fields}


@dataclass(frozen=True, kw_only=True)
class BatchOutcome:
    """What upstream is told when a batch is done. The fields are those of :class:`BatchStatus`."""

    batch: str
    total: int
    succeeded: int
    failed: int
    cancelled: int
    opened_at: float
    closed_at: float
    done_at: float


def parse_batch_outcome(text: str | bytes) -> BatchOutcome:
    """Read the end of a batch from its JSON. Unknown fields are ignored. Raises :class:`OutcomeUnreadable`."""
    try:
        raw = json.loads(text)
        if raw["v"] != OUTCOME_VERSION:
            raise OutcomeUnreadable(f"the end of a batch has version {shown(raw['v'])}: upgrade Tussis")
        return BatchOutcome(**{name: raw[name] for name in BatchOutcome.__dataclass_fields__})
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise OutcomeUnreadable(f"the end of a batch cannot be read: {problem}") from None


class Batches:
    """The batches, over one Redis client. Every method raises :class:`BrokerUnavailable` or :class:`BrokerRefused`."""

    def __init__(self, client: redis.Redis, where: str = "the broker") -> None:
        self._client = client
        self._where = where

    def close(self, name: str, *, make: bool = False) -> BatchStatus:
        """Close a batch: its producer adds no further job. It is done when its last open job has ended.

        A batch that is closed stays closed. One that gets a further job is open again. ``make``: a batch without jobs
        is made if there is none. Raises :class:`InvalidJob`, :class:`BatchUnknown` and :class:`TooManyBatches`.
        """
        check_batch(name)
        keys = (batch_key(name), BATCHES_TO_TELL_KEY)
        with broker_errors(self._where):
            closed = call(self._client, "tussis_close_batch", keys, [name, int(make)])
        if closed is None and make:
            raise TooManyBatches(f"{MOST_BATCHES} batches have open jobs: wait until one of them is done")
        return self.status(name)

    def status(self, name: str) -> BatchStatus:
        """The status of a batch. Raises :class:`InvalidJob` and :class:`BatchUnknown`."""
        check_batch(name)
        with broker_errors(self._where):
            pipe = self._client.pipeline(transaction=False)
            pipe.hgetall(batch_key(name))
            pipe.time()
            fields, now = pipe.execute()
        found = _status(name, fields, now)
        if found is None:
            raise BatchUnknown(
                f"the broker has no batch {shown(name)}: check the name (`tussis batch` lists all); a batch is kept "
                "for 7 days after its last job has ended"
            )
        return found

    def all(self) -> list[BatchStatus]:
        """The status of every batch, in the order in which they were made or done."""
        with broker_errors(self._where):
            members: Any = self._client.zrange(BATCHES_KEY, 0, -1)
            names: list[str] = [name.decode() for name in members]
            pipe = self._client.pipeline(transaction=False)
            for name in names:
                pipe.hgetall(batch_key(name))
            pipe.time()
            *found, now = pipe.execute()
        statuses = [_status(name, fields, now) for name, fields in zip(names, found, strict=True)]
        return [status for status in statuses if status is not None]

    def wait(
        self, name: str, timeout_s: float | None = None, seen: Callable[[BatchStatus], None] = lambda status: None
    ) -> BatchStatus:
        """Wait until a batch is done. ``seen`` gets the status at each look.

        ``timeout_s`` None waits without a limit. Raises :class:`WaitTimeout`, :class:`InvalidJob` and
        :class:`BatchUnknown`.
        """
        ends = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            status = self.status(name)
            seen(status)
            if status.done:
                return status
            left_s = _POLL_S if ends is None else min(_POLL_S, ends - time.monotonic())
            if left_s <= 0:
                what = f"{status.open} jobs are open" if status.open else "it is not closed"
                raise WaitTimeout(f"batch {name} is not done after {timeout_s:g} s: {what}")
            time.sleep(left_s)


def measured_rate(ends: Mapping[int, int], since: float, now: float) -> tuple[float, float] | None:
    """Ends in a second, and the seconds over which they were counted. None if none are known.

    ``ends``: minute since the epoch -> ends in it. No end is older than ``since``.
    """
    minute = int(now // 60)
    found = None
    for span in _SPANS:
        count = sum(ends.get(minute - back, 0) for back in range(span + 1))
        seconds = now - max(60.0 * (minute - span), since)
        if count and seconds > 0:
            found = (count / seconds, seconds)
        if count >= _ENOUGH:
            break
    return found


def _status(name: str, raw: Mapping[bytes, bytes], now: tuple[int, int]) -> BatchStatus | None:
    fields = {key.decode(): value.decode() for key, value in raw.items()}
    if "total" not in fields:
        return None
    opened_at = float(fields["opened_at"])
    ends = {}
    for slot in range(MINUTES):
        minute, _, count = fields.get(f"minute{slot}", "").partition(":")
        if count:
            ends[int(minute)] = int(count)
    still_open = int(fields["open"])
    rate = None
    if still_open:
        rate = measured_rate(ends, float(fields.get("resumed_at", opened_at)), now[0] + now[1] / 1e6)
    left_s = 0.0 if not still_open else None if rate is None else still_open / rate[0]
    closed_at, done_at = fields.get("closed_at"), fields.get("done_at")
    return BatchStatus(
        name=name,
        total=int(fields["total"]),
        succeeded=int(fields.get("succeeded", 0)),
        failed=int(fields.get("failed", 0)),
        cancelled=int(fields.get("cancelled", 0)),
        open=still_open,
        opened_at=opened_at,
        closed_at=None if closed_at is None else float(closed_at),
        done_at=None if done_at is None else float(done_at),
        rate_per_s=None if rate is None else rate[0],
        rate_span_s=None if rate is None else rate[1],
        left_s=left_s,
    )
