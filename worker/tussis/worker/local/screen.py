"""What the demo shows: one line a step, a live bar on a terminal, plain lines elsewhere."""

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

#: Longest line of running text on a terminal, columns.
_TEXT_WIDTH: Final = 110
_LABEL_WIDTH: Final = 12
#: Seconds between two lines of progress where there is no bar.
_PLAIN_EVERY_S: Final = 2.0


class Step:
    """One step under way. ``text`` is what its line will say."""

    def __init__(self, console: Console, label: str, progress: Progress, task: TaskID) -> None:
        self._console = console
        self._label = label
        self._progress = progress
        self._task = task
        self._shown_at = time.monotonic()
        self.text: str | Text = ""
        #: Seconds it took; set when it is over.
        self.seconds = 0.0

    def advance(self, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total``, with a word on what came of them."""
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
        """Columns."""
        return self.console.width

    @contextmanager
    def step(self, label: str, doing: str) -> Iterator[Step]:
        """A step of the demo; its line comes when it is over, and not when it fails."""
        with self._progress(doing) as (progress, task):
            step = Step(self.console, label, progress, task)
            began = time.monotonic()
            yield step
            step.seconds = time.monotonic() - began
        self.line(label, step.text, step.seconds)

    def line(self, label: str, text: str | Text, seconds: float | None = None) -> None:
        """A labelled line; on a terminal folded under itself."""
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
        """A table, or an empty line for ''."""
        self.console.print(what)

    def safe(self, text: str | Text) -> Text:
        """Text of others without what a terminal would obey. The streams escape what their encoding lacks."""
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


class _WhenCounted(ProgressColumn):
    """A column for steps that count; for the others there is the spinner."""

    def __init__(self, column: ProgressColumn) -> None:
        super().__init__()
        self._column = column

    def render(self, task: Task) -> RenderableType:
        return Text("") if task.total is None else self._column.render(task)
