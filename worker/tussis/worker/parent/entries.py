"""Replace every envelope that a worker reads from the broker before Celery processes it.

Celery trusts the envelope of a message. A header of the wrong type raises out of its event loop and ends the worker.
The entry stays unacknowledged and ends the next worker at its start. A callback in the body makes the worker publish a
message that the sender chose. This module takes only the arguments of the task (the message and ``handed_back``) from
an entry and makes a new envelope for them. All headers and properties are set here, also the delivery tag: two entries
with the same tag would be acknowledged together. An entry without such arguments is replaced by an entry with its text,
which becomes a dead letter.

The functions take and return bytes and raise nothing, for any bytes. They are the callbacks of the Redis client for
the three commands with which kombu reads entries: BRPOP and RPOP from a list, HGET from ``tussis.unacked``.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from kombu.serialization import register

from tussis.shared.messages import (
    HANDED_BACK,
    MAX_MESSAGE_BYTES,
    MAX_NESTING,
    entry_of,
    is_job_id,
    is_nested_deeper,
    random_id,
)
from tussis.shared.queues import DEFAULT_PRIORITY, PRIORITIES, QUEUES, TASK_NAME, is_queue, list_key, list_of
from tussis.shared.uris import shown

#: The largest entry that is read, in bytes. The largest message in Base64 with all characters escaped is half of it.
_MOST_BYTES = 16 * MAX_MESSAGE_BYTES
#: The most bytes of arguments in a new envelope. It must be readable again, and Base64 adds a third.
_MOST_ARGUMENT_BYTES = _MOST_BYTES // 2
#: The deepest nesting of lists and objects: body, arguments and message around the metadata.
_NESTING = MAX_NESTING + 3
#: The most bytes of an unreadable entry that are stored.
_KEPT = MAX_MESSAGE_BYTES
#: The name of the argument with an unreadable entry, which becomes a dead letter.
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class _Destination:
    """The queue and the priority of an entry."""

    queue: str
    priority: int


class _Unreadable(Exception):
    """The entry is not a message of Tussis, with the reason. ``raw``: the bytes to store, if not the entry."""

    def __init__(self, problem: str, raw: bytes | None = None) -> None:
        super().__init__(problem)
        self.raw = raw


def install() -> None:
    """Make Celery decode plain JSON.

    kombu's own decoder converts objects of the form ``{"__type__": ..., "__value__": ...}`` into other types, also in
    the metadata of a message, and Celery acknowledges a message with an object that it cannot convert.
    """
    register("json", json.dumps, json.loads, content_type="application/json", content_encoding="utf-8")


def popped(reply: Any, **_: Any) -> tuple[bytes, bytes] | None:
    """Convert the reply of BRPOP, the name of a list and an entry: the entry gets a new envelope."""
    if not reply:
        return None
    name, entry = reply
    return name, _remade(entry, _destination_of(name))[0]


def taken(entry: bytes | None, **_: Any) -> bytes | None:
    """Convert the reply of RPOP, an entry: it gets a new envelope for the destination that it names."""
    return None if entry is None else _remade(entry, None)[0]


def filed(text: bytes | None, **_: Any) -> bytes | None:
    """Convert the reply of HGET, the record of a message in work: ``[entry, exchange, routing key]``, all replaced."""
    if text is None:
        return None
    entry, destination = _remade(text, None, in_list=True)
    return b'[%b,"",%b]' % (entry, json.dumps(destination.queue).encode())


def given_back(text: bytes) -> tuple[bytes, str, str]:
    """The entry to give back, from the record of a message in work, and the queue and the list to which it belongs."""
    entry, destination = _remade(text, None, in_list=True)
    return entry, destination.queue, list_key(destination.queue, destination.priority)


@lru_cache(maxsize=256)
def _destination_of(name: bytes) -> _Destination | None:
    """The destination of a list's entries; None for the name of another list."""
    found = list_of(name.decode("utf-8", "replace"))
    return None if found is None else _Destination(*found)


def _remade(text: bytes, destination: _Destination | None, *, in_list: bool = False) -> tuple[bytes, _Destination]:
    """The new entry and its destination: ``destination``, or if that is None, the one that the old entry names."""
    envelope: Any = None
    try:
        envelope = _decoded(text, "the entry")
        if in_list:
            envelope = envelope[0] if isinstance(envelope, list) and envelope else None
        arguments = _arguments(envelope)
        encoded = json.dumps(arguments)
        if len(encoded) > _MOST_ARGUMENT_BYTES:
            raise _Unreadable(f"the arguments have {len(encoded)} bytes, the limit is {_MOST_ARGUMENT_BYTES}")
    except _Unreadable as error:
        raw = (text if error.raw is None else error.raw)[:_KEPT]
        arguments = {UNREADABLE: {"raw": raw.decode("utf-8", "replace"), "problem": str(error)}}
        encoded = json.dumps(arguments)
    destination = destination or _named_destination(envelope)
    message = arguments.get("message")
    claimed = message.get("job_id") if isinstance(message, dict) else None
    task_id = claimed if is_job_id(claimed) else random_id()
    return entry_of(encoded, task_id, destination.queue, destination.priority).encode(), destination


def _arguments(envelope: Any) -> dict[str, Any]:
    """The task's keyword arguments in a decoded entry. Raises :class:`_Unreadable`."""
    headers, properties = _object(envelope, "headers"), _object(envelope, "properties")
    if headers.get("task") != TASK_NAME:
        raise _Unreadable(f"the task is {shown(headers.get('task'))}, not {TASK_NAME!r}")
    if envelope.get("content-type") != "application/json" or envelope.get("content-encoding") not in ("utf-8", "UTF-8"):
        raise _Unreadable("the content is not JSON in UTF-8")
    if headers.get("compression") or headers.get("eta") or headers.get("expires"):
        raise _Unreadable("compression, eta and expires are not accepted")
    body = envelope.get("body")
    if not isinstance(body, str):
        raise _Unreadable("the body is not text")
    text = _plain(body) if properties.get("body_encoding") == "base64" else body.encode("utf-8", "surrogatepass")
    return _checked(_decoded(text, "the body"), text)


def _plain(body: str) -> bytes:
    try:
        return base64.b64decode(body, validate=True)
    except ValueError as error:
        raise _Unreadable(f"the body is not Base64: {error}") from None


def _checked(body: Any, text: bytes) -> dict[str, Any]:
    """The keyword arguments in a decoded body."""
    if not (isinstance(body, list) and len(body) == 3 and body[0] == [] and isinstance(body[1], dict)):
        raise _Unreadable("the body is not [[], arguments, options]", text)
    arguments: dict[str, Any] = body[1]
    names = set(arguments)
    if names == {UNREADABLE} and _is_unreadable_of_ours(arguments[UNREADABLE]):
        return arguments
    if names - {HANDED_BACK} != {"message"}:
        raise _Unreadable(f"the task takes one keyword argument, message; got {shown(sorted(names))}", text)
    return arguments


def _is_unreadable_of_ours(value: Any) -> bool:
    """Whether this is an entry that was found unreadable before and comes back from ``tussis.unacked``."""
    if not isinstance(value, dict) or set(value) != {"raw", "problem"}:
        return False
    return all(isinstance(text, str) and len(text) <= _KEPT for text in value.values())


def _decoded(text: bytes, what: str) -> Any:
    if len(text) > _MOST_BYTES:
        raise _Unreadable(f"{what} has {len(text)} bytes, the limit is {_MOST_BYTES}", text)
    try:
        decoded = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Unreadable(f"{what} is not JSON: {error}", text) from None
    if is_nested_deeper(decoded, _NESTING):
        raise _Unreadable(f"{what} is nested deeper than {_NESTING} levels", text)
    return decoded


def _object(envelope: Any, name: str) -> dict[str, Any]:
    value = envelope.get(name) if isinstance(envelope, dict) else None
    if not isinstance(value, dict):
        raise _Unreadable(f"{name} is missing")
    return value


def _named_destination(envelope: Any) -> _Destination:
    """The destination that a decoded entry names. The first queue and the default priority replace unknown values."""
    properties = envelope.get("properties") if isinstance(envelope, dict) else None
    properties = properties if isinstance(properties, dict) else {}
    info = properties.get("delivery_info")
    queue = info.get("routing_key") if isinstance(info, dict) else None
    priority = properties.get("priority")
    return _Destination(
        queue if isinstance(queue, str) and is_queue(queue) else QUEUES[0],
        priority if type(priority) is int and priority in PRIORITIES else DEFAULT_PRIORITY,
    )
