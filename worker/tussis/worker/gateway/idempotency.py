"""Requests with the header Idempotency-Key: a repeated request gets the first answer, and nothing is done twice.

As in the IETF draft "The Idempotency-Key HTTP Header Field": the key with another request is answered 422, and while
the first request is processed, a repeated one is answered 409. The broker keeps the answers, so that all processes of
the gateway know them. Only successful answers are kept. After another answer, the request is done again.

If a process is killed before it answers, the key is free after :data:`CLAIM_S`. The repeated request then has the same
ids as the first (:class:`Occasion`): the broker recognises jobs that it has already.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Self

import redis
from fastapi import Header

from tussis.shared.broker import broker_errors
from tussis.shared.broker_functions import function
from tussis.shared.errors import (
    BrokerRefused,
    BrokerUnavailable,
    IdempotencyKeyBusy,
    IdempotencyKeyReused,
    RequestInvalid,
)
from tussis.shared.messages import random_id
from tussis.shared.queues import idempotency_key

#: Seconds for which a key is busy after the last sign of the process that has it.
CLAIM_S: Final = 60
#: Seconds between two signs.
RENEW_S: Final = 15
# A string of structured fields (RFC 8941), as the draft has it, or the same without quotes.
_FORM: Final = re.compile(r'"([!#-\[\]-~ ]{1,255})"|([!#-~]{1,255})')

IdempotencyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=257,
        description="a text that only this request has, such as a UUID: a repeated request is not done twice",
    ),
]


@dataclass(frozen=True)
class Occasion:
    """The first request with a key, which repeated ones continue; or a request without a key.

    ``answer`` is set if the request was answered before.
    """

    at: datetime
    """When it was received."""
    seed: bytes | None = None
    """From which ids are derived. None: ids are random."""
    answer: dict[str, Any] | None = None
    content: str = ""
    """What the answered request contained."""
    key: str | None = None
    owner: str = ""

    @classmethod
    def unrepeated(cls) -> Self:
        """A request without a key."""
        return cls(datetime.now(UTC))

    def new_id(self, number: int = 0) -> str:
        """A UUID that a repeated request has too: the one with this number."""
        if self.seed is None:
            return random_id()
        digest = hashlib.sha256(self.seed + b"%d" % number).digest()
        return str(uuid.UUID(bytes=digest[:16], version=4))


class Idempotency:
    """The keys, over one Redis client. Raises :class:`BrokerUnavailable` and :class:`BrokerRefused`."""

    def __init__(self, client: redis.Redis, where: str, kept_s: int) -> None:
        self._where = where
        self._kept_s = kept_s
        self._claim = function(client, "tussis_request_claim")
        self._renew = function(client, "tussis_request_renew")
        self._end = function(client, "tussis_request_end")

    def begin(self, given: str | None, caller: str, fingerprint: str) -> Occasion:
        """Claim the key of a request; without a key, nothing is claimed.

        ``fingerprint`` is what must be the same in a repeated request. Raises :class:`IdempotencyKeyReused`,
        :class:`IdempotencyKeyBusy` and :class:`RequestInvalid`.
        """
        if given is None:
            return Occasion.unrepeated()
        form = _FORM.fullmatch(given)
        if form is None:
            raise RequestInvalid("the header Idempotency-Key is wrong: send 1 to 255 printable characters, as a UUID")
        name = json.dumps([caller, form[1] or form[2]])
        key, owner = idempotency_key(hashlib.sha256(name.encode()).hexdigest()), secrets.token_hex(8)
        with broker_errors(self._where):
            state, *found = self._claim(keys=[key], args=[owner, fingerprint, CLAIM_S * 1000, self._kept_s])
        if state == b"reused":
            raise IdempotencyKeyReused("another request had this Idempotency-Key: give each request a key of its own")
        if state == b"busy":
            raise IdempotencyKeyBusy(
                f"a request with this Idempotency-Key is being processed: repeat it later (at the latest {CLAIM_S} s "
                "after the gateway was killed)"
            )
        at = datetime.fromtimestamp(int(found[0]) / 1000, UTC)
        seed = name.encode() + found[0]
        if state == b"answered":
            return Occasion(at, seed, json.loads(found[1]), found[2].decode(), key, owner)
        return Occasion(at, seed, None, "", key, owner)

    def renew(self, occasion: Occasion) -> None:
        """Keep the key busy."""
        if occasion.key is not None:
            with broker_errors(self._where):
                self._renew(keys=[occasion.key], args=[occasion.owner, CLAIM_S * 1000])

    def answered(self, occasion: Occasion, answer: dict[str, Any], content: str = "") -> None:
        """Keep the answer of a request that succeeded."""
        if occasion.key is not None:
            with broker_errors(self._where):
                self._end(keys=[occasion.key], args=[occasion.owner, json.dumps(answer), content, self._kept_s])

    @contextmanager
    def releasing(self, occasion: Occasion) -> Iterator[None]:
        """Free the key if the request fails."""
        try:
            yield
        except BaseException:
            with suppress(BrokerUnavailable, BrokerRefused):
                self.release(occasion)
            raise

    def release(self, occasion: Occasion) -> None:
        """Free the key after a request that failed."""
        if occasion.key is not None:
            with broker_errors(self._where):
                self._end(keys=[occasion.key], args=[occasion.owner])
