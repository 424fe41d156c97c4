"""The output of ``tussis demo`` and ``tussis up``: a line for each step; a progress bar, on a terminal only."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.table import Table
from rich.text import Text

from tussis.shared.text import printable
from tussis.worker.local.terminal import console

#: The longest line of text on a terminal, in characters.
_TEXT_WIDTH: Final = 110
_LABEL_WIDTH: Final = 12
#: Seconds between two lines of progress when there is no bar.
_PLAIN_EVERY_S: Final = 2.0


class ScreenLine:
    """The line of one running step. ``text`` is set by the step and shown at its end."""

    def __init__(self, console: Console, label: str, progress: Progress, task: TaskID) -> None:
        self._console = console
        self._label = label
        self._progress = progress
        self._task = task
        self._shown_at = time.monotonic()
        self.text: str | Text = ""
        #: The duration in seconds, set at the end of the step.
        self.seconds = 0.0

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Show ``done`` of ``total``, with a note on the results."""
        if self._console.is_terminal:
            self._progress.update(self._task, completed=done, total=total, note=note)
        elif time.monotonic() - self._shown_at > _PLAIN_EVERY_S:
            self._shown_at = time.monotonic()
            self._console.print(f"{self._label:<{_LABEL_WIDTH + 2}}{done} of {total}  {note}".rstrip(), markup=False)


class Screen:
    """Standard output."""

    def __init__(self) -> None:
        self.console = console()

    @property
    def width(self) -> int:
        """The width in characters."""
        return self.console.width

    @contextmanager
    def step(self, label: str, doing: str) -> Iterator[ScreenLine]:
        """Run a step in a ``with`` block. Its line is shown at the end, not when it fails."""
        with self._progress(doing) as (progress, task):
            line = ScreenLine(self.console, label, progress, task)
            began = time.monotonic()
            yield line
            line.seconds = time.monotonic() - began
        self.line(label, line.text, line.seconds)

    def line(self, label: str, text: str | Text, seconds: float | None = None) -> None:
        """Show a line with a label. On a terminal long text is wrapped, and further lines are indented."""
        if not self.console.is_terminal:
            told = f"{label:<{_LABEL_WIDTH}}  {self.safe(text).plain}{'' if seconds is None else f'  {seconds:.1f} s'}"
            self.console.print(told.rstrip(), markup=False)
            return
        grid = Table.grid(padding=(0, 2), expand=False)
        grid.add_column(width=_LABEL_WIDTH, style="bold", no_wrap=True)
        grid.add_column(overflow="fold", max_width=_TEXT_WIDTH)
        shown = self.safe(text)
        if seconds is not None:
            shown = Text.assemble(shown, (f"  {seconds:.1f} s", "dim"))
        grid.add_row(label, shown)
        self.console.print(grid)

    def show(self, what: RenderableType) -> None:
        """Show a table, or an empty line for ''."""
        self.console.print(what)

    def safe(self, text: str | Text) -> Text:
        """Text without control sequences for the terminal. The streams escape characters that their encoding lacks."""
        return text if isinstance(text, Text) else Text(printable(text))

    @contextmanager
    def _progress(self, doing: str) -> Iterator[tuple[Progress, TaskID]]:
        progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            _WhenCounted(BarColumn()),
            _WhenCounted(MofNCompleteColumn()),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        with progress:
            yield progress, progress.add_task(doing, total=None, note="")


def count(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: "1 job", "2 jobs". ``many`` is the plural; ``one`` with an s when None."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


class _WhenCounted(ProgressColumn):
    """A column for steps with a total. Other steps have only the spinner."""

    def __init__(self, column: ProgressColumn) -> None:
        super().__init__()
        self._column = column

    def render(self, task: Task) -> RenderableType:
        return Text("") if task.total is None else self._column.render(task)
