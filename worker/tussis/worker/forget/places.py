"""Every place in which Tussis may keep a key, metadata, the id of a job or a message of a recording.

Tests compare the lists with the schema, with the names of the broker's keys in the code, and with what a deployment has
on its broker: a new table or key must be added here, with how it is erased. ``docs/privacy.md`` shows both lists.
"""

from __future__ import annotations

from typing import Final

_WITH_RECORDING: Final = "deleted with the recording"
_NONE: Final = "has nothing of a recording"

#: Table -> how it is erased.
TABLES: Final = {
    "recordings": "bucket, key, metadata: deleted",
    "analyses": f"error messages: {_WITH_RECORDING}",
    "jobs": f"ids of jobs: {_WITH_RECORDING}",
    "attempts": f"error messages: {_WITH_RECORDING}",
    "bags": _WITH_RECORDING,
    "segments": _WITH_RECORDING,
    "events": _WITH_RECORDING,
    "bag_progress": _WITH_RECORDING,
    "tombstones": "key of the object: deleted",
    "dead_letters": "message as received: deleted",
    "models": _NONE,
    "software": _NONE,
    "model_activations": _NONE,
    "model_shadows": _NONE,
    "forget_keys": _NONE,
    "forgotten": "keyed hashes: stay",
    "audit_trail": "keyed hashes and counts: stay",
}

_ENDED: Final = "removed when the job ends as forgotten"

#: Key of the broker, or its start -> how it is erased.
BROKER_KEYS: Final = {
    "tussis.ledger": "messages: the job ends as forgotten",
    "tussis.open": f"ids of jobs: {_ENDED}",
    "tussis.deferred": f"ids of jobs: {_ENDED}",
    "tussis.faults": f"ids of jobs: {_ENDED}",
    "tussis.unserved": f"ids of jobs: {_ENDED}",
    "tussis.sent:": f"ids of jobs: {_ENDED}",
    "tussis.batch_of": f"ids of jobs: {_ENDED}",
    "tussis.any": "messages in lists: removed",
    "tussis.cpu": "messages in lists: removed",
    "tussis.gpu": "messages in lists: removed",
    "tussis.unacked": "messages in flight: removed",
    "tussis.unacked_index": "delivery tags: removed with their messages",
    "tussis.outcomes": "outcomes: the stream is written again without them",
    "tussis.outcome:": "newest outcome of a job: deleted",
    "tussis.idempotency:": "answer of the gateway: deleted",
    "tussis.notify:": "webhooks: removed",
    "tussis.workers": "why a worker waits, which may name an object: replaced every 5 s",
    "tussis.outcomes_count": _NONE,
    "tussis.batch:": _NONE,
    "tussis.batches": _NONE,
    "tussis.batches_to_tell": _NONE,
    "tussis.models": _NONE,
    "tussis.model_queues": _NONE,
    "tussis.paused": _NONE,
    "tussis.reconciler": _NONE,
    "tussis.check:": _NONE,
}
