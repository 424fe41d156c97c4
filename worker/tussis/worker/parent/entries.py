"""What a worker reads from the broker becomes an entry of its own before Celery sees it.

Celery obeys a message's envelope: a header of the wrong type raises out of its event loop and ends the worker, the
entry stays unacknowledged and ends the next worker at its start; a callback in the body makes the worker publish a
message of the sender's choice. Here the task's arguments (the message, and ``handed_back``) are taken out of an entry,
and a new envelope is made around them. Every header and property of it is ours, the delivery tag too: two entries that
share a tag would be acknowledged together. An entry that holds no such arguments becomes one that carries its text to
the dead letters.

The functions take and give bytes, and raise nothing, whatever the bytes are. They are the callbacks of the Redis
client for the three commands through which kombu reads entries: BRPOP and RPOP from a list, HGET from
``tussis.unacked``.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
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
from tussis.shared.queues import DEFAULT_PRIORITY, PRIORITIES, QUEUES, TASK_NAME, list_key
from tussis.shared.uris import shown

#: Bytes of an entry that are looked at. The largest message in Base64 with every character escaped is half of it.
_MOST_BYTES = 16 * MAX_MESSAGE_BYTES
#: Bytes of the arguments in a new envelope, which is to be read again: Base64 makes them a third longer.
_MOST_ARGUMENT_BYTES = _MOST_BYTES // 2
#: Lists and objects inside each other: body, arguments and message around the metadata.
_NESTING = MAX_NESTING + 3
#: Bytes of an unreadable entry that are kept.
_KEPT = MAX_MESSAGE_BYTES
#: The argument that carries an unreadable entry to the dead letters.
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class _Place:
    """Where an entry belongs."""

    queue: str
    priority: int


_PLACES = {list_key(queue, priority).encode(): _Place(queue, priority) for queue in QUEUES for priority in PRIORITIES}


class _Unreadable(Exception):
    """The entry is no message of ours; the text says why. ``raw``: what is to be kept, where it is not the entry."""

    def __init__(self, problem: str, raw: bytes | None = None) -> None:
        super().__init__(problem)
        self.raw = raw


def install() -> None:
    """Have Celery decode JSON as it stands.

    kombu's own decoder turns objects of the form ``{"__type__": ..., "__value__": ...}`` into other types, in a
    message's metadata too, and Celery acknowledges a message whose objects it cannot turn.
    """
    register("json", json.dumps, json.loads, content_type="application/json", content_encoding="utf-8")


def popped(reply: Any, **_: Any) -> tuple[bytes, bytes] | None:
    """BRPOP's reply, the name of a list and an entry: the entry made anew."""
    if not reply:
        return None
    name, entry = reply
    return name, _remade(entry, _PLACES.get(name))[0]


def taken(entry: bytes | None, **_: Any) -> bytes | None:
    """RPOP's reply, an entry: made anew, for the place that it names."""
    return None if entry is None else _remade(entry, None)[0]


def filed(text: bytes | None, **_: Any) -> bytes | None:
    """HGET's reply, what kombu files of a message in work: ``[entry, exchange, routing key]``, all of it made anew."""
    if text is None:
        return None
    entry, place = _remade(text, None, in_list=True)
    return b'[%b,"",%b]' % (entry, json.dumps(place.queue).encode())


def given_back(text: bytes) -> tuple[bytes, str]:
    """What is filed of a message in work as the entry that goes back, and the list that it belongs into."""
    entry, place = _remade(text, None, in_list=True)
    return entry, list_key(place.queue, place.priority)


def _remade(text: bytes, place: _Place | None, *, in_list: bool = False) -> tuple[bytes, _Place]:
    """The new entry, and where it belongs: ``place``, or where that is None the place that the old one names."""
    envelope: Any = None
    try:
        envelope = _decoded(text, "the entry")
        if in_list:
            envelope = envelope[0] if isinstance(envelope, list) and envelope else None
        arguments = _arguments(envelope)
        word = json.dumps(arguments)
        if len(word) > _MOST_ARGUMENT_BYTES:
            raise _Unreadable(f"the arguments have {len(word)} bytes, the limit is {_MOST_ARGUMENT_BYTES}")
    except _Unreadable as error:
        raw = (text if error.raw is None else error.raw)[:_KEPT]
        arguments = {UNREADABLE: {"raw": raw.decode("utf-8", "replace"), "problem": str(error)}}
        word = json.dumps(arguments)
    place = place or _named_place(envelope)
    message = arguments.get("message")
    claimed = message.get("job_id") if isinstance(message, dict) else None
    task_id = claimed if is_job_id(claimed) else random_id()
    return entry_of(word, task_id, place.queue, place.priority).encode(), place


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
    """Whether it was found unreadable before, and comes back from ``tussis.unacked``."""
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
        raise _Unreadable(f"{what} has more than {_NESTING} lists and objects inside each other", text)
    return decoded


def _object(envelope: Any, name: str) -> dict[str, Any]:
    value = envelope.get(name) if isinstance(envelope, dict) else None
    if not isinstance(value, dict):
        raise _Unreadable(f"{name} is missing")
    return value


def _named_place(envelope: Any) -> _Place:
    """The place that a decoded entry names; the first queue and the default priority where it names none of ours."""
    properties = envelope.get("properties") if isinstance(envelope, dict) else None
    properties = properties if isinstance(properties, dict) else {}
    info = properties.get("delivery_info")
    queue = info.get("routing_key") if isinstance(info, dict) else None
    priority = properties.get("priority")
    return _Place(
        queue if isinstance(queue, str) and queue in QUEUES else QUEUES[0],
        priority if type(priority) is int and priority in PRIORITIES else DEFAULT_PRIORITY,
    )
