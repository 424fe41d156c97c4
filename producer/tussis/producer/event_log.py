"""Log events of a command of the producer: one line each on standard error, as those of a worker.

``docs/events.md`` lists the events. A worker uses structlog, which the base installation does not have.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from tussis.shared.hidden_keys import KeyHider
from tussis.shared.text import printable

_ROOT = "tussis"


class EventLog:
    """Logs events. The first argument is the name of the event, the others are its fields."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"{_ROOT}.{name}")

    def debug(self, event: str, **fields: Any) -> None:
        """Log details."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Log what happens as planned."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log what ends without an operator."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log what an operator has to look at."""
        self._log(logging.ERROR, event, fields)

    def _log(self, level: int, event: str, fields: dict[str, Any]) -> None:
        self._logger.log(level, event, extra={"fields": fields})


def configure(log_format: str, level: str, hider: KeyHider | None = None) -> None:
    """Write the events, and the warnings of libraries, to standard error. ``log_format`` is ``json`` or ``console``.

    With ``hider`` no line has the key of an object.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(log_format == "json", hider))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    logging.getLogger(_ROOT).setLevel(level.upper())


class _Lines(logging.Formatter):
    def __init__(self, as_json: bool, hider: KeyHider | None) -> None:
        super().__init__()
        self._as_json = as_json
        self._hider = hider

    def format(self, record: logging.LogRecord) -> str:
        event, fields = record.getMessage(), getattr(record, "fields", None)
        if fields is None:
            fields = {"library": record.name.partition(".")[0], "message": event}
            event = "library_log"
        if self._hider is not None:
            fields = self._hider.fields(event, fields)
        at = datetime.fromtimestamp(record.created, UTC).isoformat()
        level = record.levelname.lower()
        if self._as_json:
            return json.dumps({"event": event, "level": level, "at": at, **fields}, default=str)
        details = " ".join(f"{name}={value}" for name, value in fields.items())
        return printable(f"{at} [{level}] {event} {details}".rstrip())
