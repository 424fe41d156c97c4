"""The output of ``tussis enqueue`` and ``tussis upload``.

One line for each recording on stdout, errors and the summary on stderr.
"""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from tussis.shared.errors import WaitTimeout
from tussis.shared.text import json_line, printable, probability

if TYPE_CHECKING:
    from tussis.producer.client import Enqueued, Producer
    from tussis.shared.errors import TussisError
    from tussis.shared.outcomes import JobOutcome

#: Seconds between two updates of the progress line.
_PROGRESS_EVERY_S = 0.1


#: Exit status if jobs are still open after the longest wait.
STILL_OPEN = 3


class EnqueueReport:
    """Counts and prints the outcomes. Prints the summary at the end, also after an exception."""

    def __init__(self, *, as_json: bool, quiet: bool, dry_run: bool, wait: bool = False) -> None:
        self._as_json = as_json
        self._wait = wait
        self._awaited: dict[str, str] = {}
        """Job id -> URI of the jobs that were enqueued, if their outcomes are awaited."""
        self._failed = 0
        self._quiet = quiet
        self._dry_run = dry_run
        # If the lines of the recordings go to the same terminal, no progress line is needed.
        self._progress = sys.stderr.isatty() and (quiet or not sys.stdout.isatty())
        self._shown_at = 0.0
        self._sent = 0
        self._open = 0
        self.refused = 0
        self.files: dict[str, str] = {}
        """URI -> the file that was uploaded; empty for ``tussis enqueue``. It is the last column of a line."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()
        accepted = self._sent + self._open
        # No summary for a single refused recording or for an error before the first one: their line is enough.
        if accepted or self.refused > 1 or (kind is None and not self.refused):
            click.echo(self._summary(), err=True)

    def add(self, item: Enqueued) -> None:
        """Count and print one result of :meth:`Producer.enqueue_many`."""
        if item.error is not None:
            self.refuse(item.request.uri, item.error)
            return
        self._sent += item.sent or self._dry_run
        self._open += not (item.sent or self._dry_run)
        if self._wait:
            self._awaited[item.job_id or ""] = item.request.uri
            self._line(None)
        elif self._as_json:
            self._fields({"uri": item.request.uri, "job_id": item.job_id, "sent": item.sent})
        else:
            uri = printable(item.request.uri)
            self._columns(item.request.uri, uri if item.job_id is None else f"{item.job_id}\t{uri}")

    def full(self, depth: int) -> None:
        """Show that there is no room: so many jobs are open."""
        if self._progress:
            self._shown_at = time.monotonic()
            click.echo(f"\r\x1b[K{self._summary()}, waiting: {depth:,} jobs are open ...", err=True, nl=False)

    def refuse(self, uri: str, error: TussisError, kind: str = "uri") -> None:
        """Count and print a refused recording with its error. ``kind`` is "file" for a file."""
        self.refused += 1
        if self._as_json:
            refusal = {"class": error.error_class, "message": str(error)}
            self._line(json.dumps({kind: uri, "error": refusal}))
            return
        self._clear()
        reason = str(error)
        click.echo(printable(f"tussis: {reason}" if uri in reason else f"tussis: {uri}: {reason}"), err=True)

    @property
    def status(self) -> int:
        """The exit status: 3 if awaited jobs are open, 1 if a recording was refused or a job failed, otherwise 0."""
        return STILL_OPEN if self._awaited else int(bool(self.refused or self._failed))

    def wait(self, producer: Producer, timeout_s: float | None) -> None:
        """Print the outcome of each job that was enqueued, as the jobs end."""
        try:
            for outcome in producer.wait_each(list(self._awaited), timeout_s):
                uri = self._awaited.pop(outcome.job_id)
                self._failed += not outcome.succeeded
                if self._as_json and uri in self.files:
                    self._fields(outcome.to_dict())
                elif self._as_json:
                    self._line(json_line(outcome.to_json()))
                else:
                    self._columns(uri, _outcome_line(uri, outcome))
        except WaitTimeout:
            for job_id, uri in self._awaited.items():
                if self._as_json:
                    self._fields({"job_id": job_id, "uri": uri, "state": "open"})
                else:
                    self._columns(uri, f"{job_id}\t{printable(uri)}\topen\t")

    def _fields(self, told: dict[str, Any]) -> None:
        file = self.files.get(told["uri"])
        self._line(json.dumps(told if file is None else told | {"file": file}))

    def _columns(self, uri: str, text: str) -> None:
        file = self.files.get(uri)
        self._line(text if file is None else f"{text}\t{printable(file)}")

    def _line(self, text: str | None) -> None:
        if text is not None and not self._quiet:
            click.echo(text)
        now = time.monotonic()
        if self._progress and now >= self._shown_at + _PROGRESS_EVERY_S:
            self._shown_at = now
            click.echo(f"\r\x1b[K{self._summary()} ...", err=True, nl=False)

    def _clear(self) -> None:
        if self._progress and self._shown_at:
            click.echo("\r\x1b[K", err=True, nl=False)
            self._shown_at = 0.0

    def _summary(self) -> str:
        if self._dry_run:
            parts = [f"{self._sent:,} would be enqueued"]
        else:
            parts = [f"{self._sent:,} enqueued"]
            if self._open:
                parts.append(f"{self._open:,} open already")
        if self.refused:
            parts.append(f"{self.refused:,} refused")
        if self._failed:
            parts.append(f"{self._failed:,} failed")
        if self._awaited:
            parts.append(f"{len(self._awaited):,} open")
        return ", ".join(parts)


def _outcome_line(uri: str, outcome: JobOutcome) -> str:
    """The outcome of a job on one line: job id, URI, decision or error class, bag probability."""
    answer = outcome.answer
    if answer is not None:
        decision = "cough" if answer.decision else "no cough"
        told = f"{decision}\t{probability(answer.bag_probability, answer.threshold)}"
    else:
        told = f"{outcome.error_class or outcome.state}\t"
    return f"{outcome.job_id}\t{printable(uri)}\t{told}"
