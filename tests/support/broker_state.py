"""The content of the broker, for comparison."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import redis

from tussis.shared.queues import LEDGER_KEY, OPEN_KEY


@dataclass(frozen=True)
class Entry:
    """A list entry with its body decoded, without the fields that differ in every push."""

    key: str
    envelope: dict[str, Any]
    body: Any
    delivery_tag: str


def read_entry(key: str, raw: str) -> Entry:
    """Decode one list entry."""
    envelope = json.loads(raw)
    tag = envelope["properties"].pop("delivery_tag")
    body = json.loads(base64.b64decode(envelope.pop("body")))
    return Entry(key, envelope, body, tag)


def entries(broker: redis.Redis) -> list[Entry]:
    """Return every list entry, by key, the oldest first."""
    return [read_entry(key, _text(raw)) for key in _keys(broker, "list") for raw in reversed(broker.lrange(key, 0, -1))]


def snapshot(broker: redis.Redis) -> dict[str, Any]:
    """Return the content of the database without times and delivery tags. Random job ids stay in it."""
    state: dict[str, Any] = {
        "entries": [
            (entry.key, entry.envelope, entry.body[1]["message"] | {"enqueued_at": 0}) for entry in entries(broker)
        ],
        LEDGER_KEY: {
            _text(job_id): json.loads(_text(text)) | {"enqueued_at": 0}
            for job_id, text in broker.hgetall(LEDGER_KEY).items()
        },
    }
    return state | {key: sorted(map(_text, broker.zrange(key, 0, -1))) for key in _keys(broker, "zset")}


def open_jobs(broker: redis.Redis) -> list[str]:
    """Return the ids of the open jobs, the oldest first."""
    return [_text(job_id) for job_id in broker.zrange(OPEN_KEY, 0, -1)]


def _keys(broker: redis.Redis, kind: str) -> list[str]:
    return sorted(_text(key) for key in broker.scan_iter("*", _type=kind))


def _text(value: object) -> str:
    assert isinstance(value, str), "the client decodes responses"
    return value
