"""The output of ``tussis failures``: JSON, a table, and one failure with its attempts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from tussis.shared.text import printable
from tussis.worker.local.terminal import console, on_terminal, plain

if TYPE_CHECKING:
    from tussis.shared.store.records import Analysis


def show_classes(counts: dict[str, int], as_json: bool) -> None:
    """Print the number of failures of each error class, one class per line."""
    if as_json:
        for name, number in counts.items():
            click.echo(json.dumps({"class": name, "failures": number}))
        return
    if not counts:
        click.echo("No failure matches.")
    names = {name: printable(name) for name in counts}
    width = max(map(len, names.values()), default=0)
    for name, number in counts.items():
        click.echo(f"{names[name]:<{width}}  {number:>9,}")


def print_table(shown: list[Analysis]) -> None:
    """Print failures as a table. On a terminal the message is below the recording, otherwise in a column."""
    from rich import box
    from rich.table import Table

    folded = on_terminal()
    table = Table(box=box.SIMPLE_HEAD if folded else None, pad_edge=False, show_edge=False)
    table.add_column("id", justify="right", no_wrap=True)
    table.add_column("class", no_wrap=True)
    table.add_column("failed at (UTC)", no_wrap=True)
    table.add_column("attempts", justify="right", no_wrap=True)
    table.add_column("recording", overflow="fold", ratio=1 if folded else None)
    if not folded:
        table.add_column("message")
    for analysis in shown:
        discarded = " (discarded)" if analysis.state.value == "discarded" else ""
        uri, message = plain(analysis.uri), plain(analysis.error_message or "")
        table.add_row(
            str(analysis.id),
            plain(f"{analysis.error_class}{discarded}"),
            f"{analysis.finished_at:%Y-%m-%d %H:%M:%S}",
            str(analysis.attempts),
            *([f"{uri}\n[dim]{message}[/]"] if folded else [uri, message]),
        )
    console().print(table)


def print_one(shown: dict[str, Any]) -> None:
    """Print one analysis, and one line per attempt."""
    history = shown.pop("history")
    error = shown.pop("error")
    if error is not None:
        shown["error"] = f"{error['class']}: {error['message']}"
    width = max(map(len, shown))
    for name, value in shown.items():
        if value not in (None, "", {}):
            text = json.dumps(value) if isinstance(value, dict) else str(value)
            click.echo(f"{name:<{width}}  {printable(text)}")
    for attempt in history:
        outcome = attempt["outcome"] or "running"
        error = attempt["error"]
        why = "" if error is None else f"  {error['class']}: {error['message']}"
        line = f"  attempt {attempt['number']:>2}  {attempt['started_at']}  {outcome:<11}  {attempt['worker']}{why}"
        click.echo(printable(line))
