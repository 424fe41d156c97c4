"""A webhook: the outcome of a job, or the end of a batch, on its way to the receiver."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from tussis.shared.outcomes import JobOutcome


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """One webhook, and what became of its delivery. Times are seconds since the epoch."""

    webhook_id: str
    """Identifies the outcome: the same at every attempt, after a crash, and when the outcome is replayed."""
    recording: str
    """URI of the recording; the id of the job if the outcome names none; for a batch its name. Webhooks of one
    recording keep their order."""
    body: str
    number: int = 0
    """Webhooks of one recording are delivered in the order of their numbers."""
    attempts: int = 0
    first_at: float | None = None
    """Time of the first attempt."""
    due_at: float = 0.0
    """Time of the next attempt."""
    reason: str = ""
    """Why the last attempt failed."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"), ensure_ascii=False)


def parse_webhook(text: str | bytes) -> Webhook:
    """Read what :meth:`Webhook.to_json` wrote."""
    return Webhook(**json.loads(text))


def webhook_of(outcome: JobOutcome) -> Webhook:
    """The webhook of an outcome from the store."""
    return webhook_of_document(outcome.to_json(), None)


def webhook_of_document(text: str, told_at: float | None) -> Webhook:
    """The webhook of an outcome, from its JSON as it is: fields of a later version reach the receiver.

    ``told_at``: when the broker was told, for an outcome that has no time of its own.
    """
    document = _object(text)
    at = _number(document.get("finished_at")) or told_at or 0.0
    job_id, uri, state = (_word(document.get(name)) for name in ("job_id", "uri", "state"))
    return Webhook(
        webhook_id=_identify(document, text),
        recording=uri or job_id or "",
        body=_body(f"job.{state or 'ended'}", at, text if document else json.dumps(text)),
    )


def webhook_of_batch(text: str, told_at: float) -> Webhook:
    """The webhook of the end of a batch, from its JSON as it is. ``told_at``: when the broker was told."""
    document = _object(text)
    return Webhook(
        webhook_id=_hashed(text),
        recording=f"batch {_word(document.get('batch')) or ''}",
        body=_body("batch.done", _number(document.get("done_at")) or told_at, text if document else json.dumps(text)),
    )


def _body(kind: str, at: float, data: str) -> str:
    head = json.dumps({"type": kind, "timestamp": _iso(at)}, separators=(",", ":"))
    return f'{head[:-1]},"data":{data}}}'


def _identify(document: dict[str, Any], text: str) -> str:
    """The id: of the job, its message, its answer and its state, which an outcome that is replayed has too."""
    identity: object = text
    if _word(document.get("job_id")):
        enqueued_at = _number(document.get("enqueued_at"))
        # The database stores microseconds.
        message = None if enqueued_at is None else round(enqueued_at * 1e6)
        identity = [document["job_id"], message, document.get("analysis_id"), document.get("state")]
    return _hashed(identity)


def _hashed(identity: object) -> str:
    return f"msg_{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]}"


def _object(text: str) -> dict[str, Any]:
    """The JSON object; empty for another text."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _iso(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return "1970-01-01T00:00:00.000Z"
