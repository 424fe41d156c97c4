"""The measurements of a benchmark: a table, the machine, and the comparison with the targets. As text and as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TypeAlias

from tussis.worker.atomic import replace_file
from tussis.worker.bench.core_speed import core_gflops
from tussis.worker.detector.arithmetic import processor
from tussis.worker.local.terminal import console, on_terminal

#: The version of the JSON format, raised when a field changes its meaning.
SCHEMA_VERSION = 1

Cell: TypeAlias = str | float | int | None


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine and software of a measurement."""

    cpu: str
    """The name of the CPU and the best of its instruction sets that onnxruntime uses."""
    gflops: float
    """Speed of one core at the time of the measurement: float32 matrix products, in 10^9 operations a second."""
    cores: int
    """The number of cores that this process may use."""
    memory_gib: float
    python: str
    torch: str
    """The version; empty when it is not installed. The same for ``onnxruntime``."""
    onnxruntime: str
    date: str
    """UTC, ISO 8601, to the second."""

    def line(self) -> str:
        """The machine as a line of text."""
        return (
            f"{self.cpu}, {self.cores} cores of {self.gflops:.0f} Gflop/s, {self.memory_gib:.0f} GiB;"
            f" Python {self.python},"
            f" torch {self.torch or '-'}, onnxruntime {self.onnxruntime or '-'}; {self.date}"
        )


def hardware() -> Hardware:
    """The machine and software of this process. Takes a tenth of a second, and loads neither torch nor onnxruntime."""
    return Hardware(
        cpu=processor(),
        gflops=round(core_gflops(), 1),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        python=platform.python_version(),
        torch=_version("torch"),
        onnxruntime=_version("onnxruntime") or _version("onnxruntime-gpu"),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table. ``digits``: the number of decimals of a float."""

    name: str
    unit: str = ""
    digits: int = 2

    @property
    def heading(self) -> str:
        """The name and the unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def text(self, cell: Cell) -> str:
        """One cell as text; ``-`` for None."""
        if cell is None:
            return "-"
        return f"{cell:,.{self.digits}f}" if isinstance(cell, float) else f"{cell:,}" if _number(cell) else str(cell)


@dataclass(frozen=True, slots=True)
class TargetCheck:
    """One target and its measurement."""

    what: str
    measured: float
    target: float
    at_most: bool = False
    """Whether the target is an upper bound; if not, it is a lower bound."""
    void: str = ""
    """Why the measurement is invalid; empty when it is valid."""

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None when the measurement is void."""
        if self.void:
            return None
        return self.measured <= self.target if self.at_most else self.measured >= self.target

    def line(self) -> str:
        """The comparison as a line of text."""
        bound = "at most" if self.at_most else "at least"
        word = f"void: {self.void}" if self.void else "reached" if self.reached else "NOT reached"
        return f"{self.what}: {self.measured:,.4g}, target {bound} {self.target:,.4g}: {word}"


@dataclass(frozen=True, slots=True)
class Measurements:
    """A table of measurements."""

    title: str
    command: str
    """The command line that repeats the measurement."""
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    """Each row has a cell for each of ``columns``."""
    hardware: Hardware
    notes: tuple[str, ...] = ()
    verdicts: tuple[TargetCheck, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.title}: a row of {len(row)} cells under {len(self.columns)} columns: {row}")


def as_json(found: Measurements) -> dict[str, object]:
    """The measurements as plain values; ``docs/performance.md`` has the schema."""
    return {
        "schema": SCHEMA_VERSION,
        "title": found.title,
        "command": found.command,
        "hardware": asdict(found.hardware),
        "columns": [asdict(column) for column in found.columns],
        "rows": [list(row) for row in found.rows],
        "notes": list(found.notes),
        "verdicts": [asdict(verdict) | {"reached": verdict.reached} for verdict in found.verdicts],
    }


def write_json(found: Measurements, path: Path) -> None:
    """Write the measurements as JSON, whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(as_json(found), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    replace_file(path, text.encode())


def plain(found: Measurements) -> str:
    """The measurements as text, with a Markdown table with aligned columns."""
    cells = [[column.heading for column in found.columns]]
    cells += [[column.text(cell) for column, cell in zip(found.columns, row, strict=True)] for row in found.rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = _right(found)
    lines = [_line(row, widths, right) for row in cells]
    rule = [("-" * (width - 1) + ":") if flush else "-" * width for width, flush in zip(widths, right, strict=True)]
    lines.insert(1, f"| {' | '.join(rule)} |")
    return "\n".join([found.title, f"$ {found.command}", found.hardware.line(), "", *lines, "", *_under(found)])


def show(found: Measurements, echo: Callable[[str], object] = print) -> None:
    """Print the measurements: with rich on a terminal, as :func:`plain` text elsewhere."""
    if not on_terminal():
        echo(plain(found))
        return
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(found.title), caption=escape(found.hardware.line()), box=box.SIMPLE_HEAD)
    for column, flush in zip(found.columns, _right(found), strict=True):
        table.add_column(escape(column.heading), justify="right" if flush else "left")
    for row in found.rows:
        table.add_row(*(escape(column.text(cell)) for column, cell in zip(found.columns, row, strict=True)))
    screen = console()
    screen.print(table)
    for line in _under(found):
        screen.print(escape(line))


def _under(found: Measurements) -> list[str]:
    return [*(f"- {note}" for note in found.notes), *(f"* {verdict.line()}" for verdict in found.verdicts)]


def _right(found: Measurements) -> list[bool]:
    """For each column, whether it is right-aligned, because it holds numbers."""
    return [
        any(_number(row[index]) for row in found.rows) and all(not isinstance(row[index], str) for row in found.rows)
        for index in range(len(found.columns))
    ]


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [
        text.rjust(width) if flush else text.ljust(width) for text, width, flush in zip(row, widths, right, strict=True)
    ]
    return f"| {' | '.join(padded)} |"


def _number(cell: Cell) -> bool:
    return isinstance(cell, int | float)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
