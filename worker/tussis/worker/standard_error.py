"""Turn everything that Python code writes to a worker's standard error into one JSON object per line.

Lines of Celery's signal handlers, ``traceback.print_exc`` and a library's ``print`` become ``library_log`` events. An
uncaught exception becomes an ``uncaught_exception`` event. The output of native code and ``faulthandler``, which write
to the file descriptor, is not changed.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from tussis.worker import logs

_log = logs.get("standard_error")


class _Lines(io.TextIOBase):
    """A replacement for ``sys.stderr``: each line becomes a warning of the logger ``stderr``."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, fileno: int) -> None:
        self._fileno = fileno
        self._pieces = threading.local()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fileno

    def write(self, text: str) -> int:
        *lines, rest = (getattr(self._pieces, "text", "") + text).split("\n")
        self._pieces.text = rest
        for line in lines:
            self._tell(line)
        return len(text)

    def flush(self) -> None:
        rest, self._pieces.text = getattr(self._pieces, "text", ""), ""
        self._tell(rest)

    def _tell(self, line: str) -> None:
        # A logging handler that cannot write reports it on standard error: without this check, an endless recursion.
        if line.strip() and not getattr(self._pieces, "telling", False):
            self._pieces.telling = True
            try:
                logging.getLogger("stderr").warning("%s", line)
            finally:
                self._pieces.telling = False


@contextmanager
def as_json_lines() -> Iterator[None]:
    """Install the replacement within the block, in this process and its forks. Call :func:`logs.configure` before.

    The hooks for uncaught exceptions stay installed afterwards, because an exception that leaves the block is reported
    only when the interpreter ends.
    """
    before = sys.stderr
    sys.stderr = _Lines(before.fileno())
    sys.excepthook = _uncaught
    threading.excepthook = lambda told: _uncaught(told.exc_type, told.exc_value, told.exc_traceback)
    sys.unraisablehook = lambda told: _uncaught(told.exc_type, told.exc_value, told.exc_traceback)
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = before


def say(message: str, *_: Any) -> None:
    """Write one line. Replaces Celery's ``safe_say``, which runs in signal handlers, where logging could deadlock."""
    event = {"event": "library_log", "level": "warning", "at": datetime.now(UTC).isoformat().replace("+00:00", "Z")}
    line = json.dumps(event | {"library": "celery", "message": message}) + "\n"
    os.write(2, line.encode())


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    _log.critical("uncaught_exception", reason=f"{kind.__name__}: {error}", exc_info=(kind, error, trace))
