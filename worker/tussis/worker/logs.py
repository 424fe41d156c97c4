"""Structured logs: one event per line, with a stable name in ``event``. ``docs/events.md`` lists the events."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from tussis.shared.hidden_keys import KeyHider
from tussis.shared.text import printable

# Celery and these libraries log through the standard library. Their lines become ``library_log`` events.
_LIBRARIES = ("celery", "kombu", "billiard", "botocore", "boto3", "urllib3", "sqlalchemy", "alembic", "amqp")


_hider: KeyHider | None = None


def configure(log_format: str, level: str, hider: KeyHider | None = None) -> None:
    """Send the events of Tussis and the warnings of libraries to standard error, as JSON lines or as readable text.

    ``log_format`` is ``json`` or ``console``. ``level`` is the lowest level of Tussis' own events that is logged. With
    ``hider`` no line has the key of an object.
    """
    global _hider
    _hider = hider
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer(default=str)
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    tail: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    tail.append(structlog.processors.format_exc_info)
    if hider is not None:
        tail.append(_without_keys)
    if log_format != "json":
        tail.append(_printable)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_name_library_event, *shared], processors=[*tail, renderer]
        )
    )
    # Warnings of Python become events of the library "py".
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("tussis").setLevel(level.upper())
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)


def get(name: str) -> Any:
    """A logger below ``tussis``. Its methods take the event's name first and its fields as keywords."""
    return structlog.stdlib.get_logger(f"tussis.{name}")


def without_keys(text: str) -> str:
    """The text of an error without keys, if they are hidden. For what the parent and the broker are told."""
    if _hider is None:
        return text
    return _hider.text(text, structlog.contextvars.get_contextvars().get("uri"))


def _without_keys(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    assert _hider is not None
    name = str(event.get("event"))
    return _hider.fields(name, dict(event))


def _printable(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape control characters, which object keys and messages may contain. A trace keeps its line breaks."""
    for name, value in event.items():
        if name == "exception":
            event[name] = "\n".join(map(printable, str(value).split("\n")))
        elif not isinstance(value, bool | int | float | None):
            event[name] = printable(str(value))
    return event


def _name_library_event(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Turn a log line of a library into a ``library_log`` event with the text in ``message``."""
    record = event.get("_record")
    event["message"] = event["event"]
    event["event"] = "library_log"
    event["library"] = record.name.partition(".")[0] if record is not None else ""
    return event
