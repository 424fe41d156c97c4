"""The events in the workers' logs, as lines of text for the screen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Events that are not shown: the lines of the jobs are enough.
_SILENT = frozenset({"child_ready", "metrics_served", "worker_stopped"})


@dataclass(frozen=True)
class LogLine:
    """An event of a worker's log, as text. ``outcome`` is set when a job ends."""

    text: str
    outcome: str | None = None


class LogTail:
    """Reads the new lines of a log file, from its end at construction."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self._rest = b""

    def events(self) -> Iterator[LogLine]:
        """The events written since the last call."""
        try:
            with self._path.open("rb") as log:
                log.seek(self._offset)
                new = log.read()
        except FileNotFoundError:
            return
        self._offset += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            told = parse_line(line.decode(errors="replace"))
            if told is not None:
                yield told


def parse_line(line: str) -> LogLine | None:
    """A line of the log as text for the screen; None for a line that is not shown."""
    try:
        event = json.loads(line)
    except ValueError:
        return LogLine(line) if line.startswith("tussis: ") else None
    if not isinstance(event, dict):
        return None
    name = event.get("event")
    if name == "job_done":
        return _job(event)
    if name in _SILENT or event.get("level") in ("debug", None):
        return None
    about = event.get("reason") or event.get("message") or event.get("worker") or event.get("uri") or ""
    return LogLine(f"{str(name).replace('_', ' ')}: {about}" if about else str(name).replace("_", " "))


def _job(event: dict[str, Any]) -> LogLine:
    outcome = str(event.get("outcome"))
    why = f" ({event['error_class']})" if event.get("error_class") else ""
    seconds = float(event.get("ms") or 0.0) / 1000
    return LogLine(f"{outcome}{why}  {event.get('uri')}  {seconds:.2f} s", outcome)
