"""The open jobs of the ledger: find and read some of them, tell where they wait, remove the messages of closed ones."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from tussis.shared.broker import broker_errors
from tussis.shared.broker_functions import function
from tussis.shared.depth import read_model_queues
from tussis.shared.ledger import decoded, message_under
from tussis.shared.messages import Job
from tussis.shared.queues import (
    BATCH_OF_KEY,
    DEFERRED_KEY,
    LEDGER_KEY,
    OPEN_KEY,
    PRIORITIES,
    QUEUES,
    list_key,
    sent_key,
)

#: Messages of the ledger that one command reads.
_PAGE = 1000
#: List entries that one step of the broker looks at.
_PART = 500

_ID = re.compile(rb'"id":"([^"]*)"')
_BODY = re.compile(rb'"body":"([^"]*)"')


@dataclass(frozen=True)
class Place:
    """Where the message of an open job is: its queue or model queue, and whether it is deferred."""

    queue: str
    deferred: bool


class OpenJobs:
    """The open jobs, over one Redis client.

    Every method raises :class:`BrokerUnavailable` and :class:`BrokerRefused`.
    """

    def __init__(self, client: redis.Redis, where: str = "the broker") -> None:
        self._client = client
        self._where = where
        self._prune = function(client, "tussis_prune")

    def find(self, matches: Callable[[Mapping[str, Any]], bool]) -> dict[str, float]:
        """Job id -> enqueued_at of the jobs whose message (decoded JSON) matches, the oldest first.

        A job that is opened or closed meanwhile may be left out. Messages that are no object have no job.
        """
        found: dict[str, float] = {}
        cursor = 0
        while True:
            with broker_errors(self._where):
                reply: Any = self._client.hscan(LEDGER_KEY, cursor, count=_PAGE)
            cursor, page = reply
            for job_id, text in page.items():
                message = decoded(text)
                if isinstance(message, dict) and matches(message):
                    enqueued_at = message.get("enqueued_at")
                    found[_text(job_id)] = enqueued_at if isinstance(enqueued_at, int | float) else 0.0
            if not cursor:
                return dict(sorted(found.items(), key=lambda one: one[1]))

    def of_batch(self, name: str) -> dict[str, float]:
        """Job id -> enqueued_at of the open jobs of a batch, the oldest first.

        A job that is opened or closed meanwhile may be left out.
        """
        found: dict[str, float] = {}
        cursor = 0
        while True:
            with broker_errors(self._where):
                reply: Any = self._client.hscan(BATCH_OF_KEY, cursor, count=_PAGE)
                cursor, page = reply
                members = [job_id for job_id, names in page.items() if name in _text(names).split(" ")]
                times: Any = self._client.zmscore(OPEN_KEY, members) if members else []
            found |= {_text(job_id): time for job_id, time in zip(members, times, strict=True) if time is not None}
            if not cursor:
                return dict(sorted(found.items(), key=lambda one: one[1]))

    def read(self, job_ids: Sequence[str]) -> tuple[list[Job], list[str]]:
        """The open ones of these jobs, and the ids of those whose message no worker can read."""
        if not job_ids:
            return [], []
        with broker_errors(self._where):
            texts = self._client.hmget(LEDGER_KEY, list(job_ids))
        jobs, unreadable = [], []
        for job_id, text in zip(job_ids, texts, strict=True):
            job = None if text is None else message_under(job_id, text)
            if job is not None:
                jobs.append(job)
            elif text is not None:
                unreadable.append(job_id)
        return jobs, unreadable

    def places(self, jobs: Sequence[Job]) -> dict[str, Place]:
        """Job id -> where its message is."""
        if not jobs:
            return {}
        ids = [job.job_id for job in jobs]
        with broker_errors(self._where):
            keys = [
                (queue, sent_key(queue, priority))
                for queue in read_model_queues(self._client)
                for priority in sorted({job.priority for job in jobs})
            ]
            pipe = self._client.pipeline(transaction=False)
            pipe.zmscore(DEFERRED_KEY, ids)
            for _, key in keys:
                pipe.zmscore(key, ids)
            deferred, *sent = pipe.execute()
        queues = {job.job_id: job.queue for job in jobs}
        for (queue, _), scores in zip(keys, sent, strict=True):
            queues |= {job_id: queue for job_id, score in zip(ids, scores, strict=True) if score is not None}
        return {job_id: Place(queues[job_id], due is not None) for job_id, due in zip(ids, deferred, strict=True)}

    def prune(self, closed: Mapping[str, float]) -> int:
        """Remove the waiting messages of closed jobs (id -> enqueued_at); returns their number.

        One that is missed, or that a worker has already, ends at its claim.
        """
        with broker_errors(self._where):
            queues = (*QUEUES, *read_model_queues(self._client))
        return sum(self._prune_list(list_key(queue, priority), closed) for queue in queues for priority in PRIORITIES)

    def _prune_list(self, key: str, closed: Mapping[str, float]) -> int:
        """Look at the messages that wait now, the next ones first, in steps."""
        kept = removed = 0
        with broker_errors(self._where):
            length = self._client.llen(key)
            while kept + removed < length:
                first, last = -kept - _PART, -kept - 1
                entries: Any = self._client.lrange(key, first, last)
                named = list(_closed_in(entries, closed))
                gone = int(self._prune(keys=[LEDGER_KEY, key], args=[first, last, *named])) if named else 0
                removed, kept = removed + gone, kept + len(entries) - gone
                if len(entries) < _PART:
                    break
        return removed


def _closed_in(entries: Sequence[bytes], closed: Mapping[str, float]) -> Iterator[str]:
    """The ids of those closed jobs whose message is one of the entries. One that was enqueued later is another."""
    for entry in entries:
        found = _ID.search(entry)
        job_id = found[1].decode("utf-8", "replace") if found else ""
        if job_id in closed and (body := _BODY.search(entry)):
            try:
                message = base64.b64decode(body[1])
            except binascii.Error:
                continue
            enqueued_at = b'"enqueued_at":' + json.dumps(closed[job_id]).encode()
            if enqueued_at + b"," in message or enqueued_at + b"}" in message:
                yield job_id


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
