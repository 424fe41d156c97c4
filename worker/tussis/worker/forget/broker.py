"""Erases recordings from the broker: every key that holds a message, an outcome, a webhook or an answer.

``chosen`` decides for each recording that a document names. So a second run, or a replay, needs no key: the tombstones
decide. An open job ends with the failure ``forgotten``, which names no key and is told once. Messages move between
lists and workers meanwhile: the pass is repeated until one finds nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import redis
from redis.exceptions import NoPermissionError, ResponseError

from tussis.shared.broker import broker_errors
from tussis.shared.broker_functions import function
from tussis.shared.depth import read_model_queues
from tussis.shared.errors import Forgotten
from tussis.shared.forgetting import Named, named_in_text
from tussis.shared.ledger import Ledger, decoded
from tussis.shared.messages import is_shadow
from tussis.shared.outcomes import JobOutcome, OutcomeState
from tussis.shared.queues import (
    IDEMPOTENCY_PREFIX,
    LEDGER_KEY,
    NOTIFY_PREFIX,
    OUTCOME_PREFIX,
    OUTCOMES_KEY,
    PRIORITIES,
    QUEUES,
    UNACKED_INDEX_KEY,
    UNACKED_KEY,
    list_key,
)

#: Chooses among recordings: whether each is to be erased.
Choice = Callable[[Sequence[Named]], Sequence[bool]]

_PAGE: Final = 500
#: The most passes. Each finds only what moved during the one before.
_MOST_PASSES: Final = 20
#: Seconds: the longest wait for the append-only file, and between two looks at it.
_REWRITE_S: Final = 900.0
_POLL_S: Final = 0.1


class BrokerErasure:
    """Counts or erases what the broker holds of the chosen recordings.

    Raises :class:`BrokerUnavailable` and :class:`BrokerRefused`.
    """

    def __init__(self, client: redis.Redis, where: str, ledger: Ledger, chosen: Choice) -> None:
        self._client: Any = client
        self._where = where
        self._ledger = ledger
        self._chosen = chosen
        self._remove_entries = function(client, "tussis_remove_entries")

    def count(self) -> Counter[str]:
        """Place -> number of its documents that name a chosen recording."""
        return self._pass(really=False)

    def erase(self) -> Counter[str]:
        """Erase them; returns their number by place."""
        counts: Counter[str] = Counter()
        for _ in range(_MOST_PASSES):
            found = self._pass(really=True)
            counts += found
            if not found:
                break
        return counts

    def named(self, wanted: Callable[[Named], bool]) -> set[Named]:
        """The addresses of the open jobs that are wanted, for instance by their subject."""
        with broker_errors(self._where):
            return {
                one
                for _, text in self._client.hscan_iter(LEDGER_KEY, count=_PAGE)
                for one in named_in_text(text)
                if one.name is not None and wanted(one)
            }

    def _pass(self, *, really: bool) -> Counter[str]:
        with broker_errors(self._where):
            return +Counter(
                {
                    "open jobs": self._jobs(really),
                    "messages in queues": self._lists(really),
                    "messages in flight": self._hash(UNACKED_KEY, really, index=UNACKED_INDEX_KEY),
                    "outcomes": self._stream(OUTCOMES_KEY, really),
                    "newest outcomes": self._texts(OUTCOME_PREFIX, really),
                    "answers of the gateway": self._answers(really),
                    "webhooks": self._webhooks(really),
                }
            )

    # --- the places ---

    def _jobs(self, really: bool) -> int:
        found = self._of(self._client.hscan_iter(LEDGER_KEY, count=_PAGE))
        count = 0
        for job_id, text in found:
            count += 1
            if really:
                message = decoded(text)
                self._ledger.take_out(job_id, None if is_shadow(message) else _outcome(job_id, message))
        return count

    def _lists(self, really: bool) -> int:
        queues = (*QUEUES, *read_model_queues(self._client))
        return sum(self._list(list_key(queue, priority), really) for queue in queues for priority in PRIORITIES)

    def _list(self, key: str, really: bool) -> int:
        entries = ((entry, entry) for entry in self._list_entries(key))
        chosen = list(self._of(entries))
        if really:
            for entry, _ in chosen:
                self._client.lrem(key, 0, entry)
        return len(chosen)

    def _list_entries(self, key: str) -> Iterator[bytes]:
        start = 0
        while page := self._client.lrange(key, start, start + _PAGE - 1):
            yield from page
            start += len(page)

    def _hash(self, key: str, really: bool, index: str | None = None) -> int:
        chosen = [field for field, _ in self._of(self._client.hscan_iter(key, count=_PAGE))]
        if really and chosen:
            pipe = self._client.pipeline(transaction=True)
            pipe.hdel(key, *chosen)
            if index is not None:
                pipe.zrem(index, *chosen)
            pipe.execute()
        return len(chosen)

    def _stream(self, key: str, really: bool) -> int:
        chosen = [entry_id for entry_id, _ in self._of(self._entries(key))]
        if really and chosen:
            self._remove_entries(keys=[key, f"{key}:copy"], args=chosen)
        return len(chosen)

    def _entries(self, key: str) -> Iterator[tuple[bytes, bytes]]:
        start = "-"
        while page := self._client.xrange(key, min=start, count=_PAGE):
            for entry_id, fields in page:
                for value in fields.values():
                    yield entry_id, value
            start = f"({page[-1][0].decode()}"

    def _texts(self, prefix: str, really: bool) -> int:
        keys = (key for key in self._client.scan_iter(match=f"{prefix}*", count=_PAGE))
        chosen = [key for key, _ in self._of((key, self._client.get(key) or b"") for key in keys)]
        if really and chosen:
            self._client.delete(*chosen)
        return len(chosen)

    def _answers(self, really: bool) -> int:
        keys = self._client.scan_iter(match=f"{IDEMPOTENCY_PREFIX}*", count=_PAGE)
        texts = ((key, value) for key in keys for value in self._client.hvals(key))
        chosen = {key for key, _ in self._of(texts)}
        if really and chosen:
            self._client.delete(*chosen)
        return len(chosen)

    def _webhooks(self, really: bool) -> int:
        count = 0
        for key in list(self._client.scan_iter(match=f"{NOTIFY_PREFIX}*", count=_PAGE)):
            match key.decode("utf-8", "replace").rpartition(":")[2]:
                case "outbox":
                    count += self._hash(key.decode(), really)
                case "again":
                    count += self._list(key.decode(), really)
                case "undelivered":
                    count += self._stream(key.decode(), really)
        return count

    def _of(self, documents: Any) -> Iterator[tuple[Any, bytes]]:
        """The documents (id, text) that name a chosen recording."""
        page: list[tuple[Any, bytes, list[Named]]] = []
        for which, text in documents:
            page.append((which, text, named_in_text(text)))
            if len(page) == _PAGE:
                yield from self._matching(page)
                page = []
        yield from self._matching(page)

    def _matching(self, page: Sequence[tuple[Any, bytes, list[Named]]]) -> Iterator[tuple[Any, bytes]]:
        answers = iter(self._chosen([one for _, _, named in page for one in named]))
        for which, text, named in page:
            if True in [next(answers) for _ in named]:  # one answer for each
                yield which, text


def _outcome(job_id: bytes, message: object) -> JobOutcome:
    """The outcome of a forgotten job. It names no object."""
    enqueued_at = message.get("enqueued_at") if isinstance(message, Mapping) else None
    return JobOutcome(
        job_id=job_id.decode("utf-8", "replace"),
        uri=None,
        state=OutcomeState.FAILED,
        enqueued_at=enqueued_at if isinstance(enqueued_at, int | float) else None,
        finished_at=time.time(),
        error_class=Forgotten.error_class,
        error_message=str(Forgotten()),
    )


def rewrite_append_only_file(client: redis.Redis, where: str, wait_s: float = _REWRITE_S) -> str:
    """Let the broker write its append-only file again, and wait until it has; returns what became of it, one line."""
    redis_client: Any = client
    ends = time.monotonic() + wait_s

    def running() -> bool:
        info = redis_client.info("persistence")
        return bool(info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"])

    def wait() -> bool:
        while running():
            if time.monotonic() >= ends:
                return False
            time.sleep(_POLL_S)
        return True

    with broker_errors(where):
        try:
            if not redis_client.info("persistence")["aof_enabled"]:
                return "the broker has no append-only file"
            # One that began before may hold what was erased since.
            if not wait():
                return f"not rewritten: another rewrite takes more than {wait_s:.0f} s; run the command again"
            redis_client.execute_command("BGREWRITEAOF")
            if not wait():
                return f"the rewrite takes more than {wait_s:.0f} s; look at INFO persistence"
            status = redis_client.info("persistence")["aof_last_bgrewrite_status"]
        except NoPermissionError:
            return "not rewritten: this login may not run BGREWRITEAOF or INFO; run BGREWRITEAOF with another one"
        except ResponseError as error:
            return f"not rewritten: {error}"
    return "rewritten" if status == "ok" else f"not rewritten: the broker reports {status}; look at its log"
