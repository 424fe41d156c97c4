"""What others wrote (keys, messages, paths) neither breaks a table nor reaches the terminal as a command."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from tussis.shared.depth import Depth
from tussis.shared.store.records import Counts
from tussis.shared.text import printable
from tussis.worker.cli import status
from tussis.worker.local.terminal import plain

NASTY = ("s3://b/[/x] [bold].wav", "a\x1b[31mred\x1b[0m", "two\nlines\r", "ends in \\")


@pytest.mark.parametrize("text", NASTY)
def test_plain_comes_through_markup_as_it_is(text: str) -> None:
    console = Console(file=StringIO(), width=200)
    with console.capture() as capture:
        console.print(f"[dim]{plain(text)}[/]")
    assert capture.get() == printable(text) + "\n"


def test_status_shows_a_worker_whatever_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    entry = status.WorkerEntry(
        worker="cpu@host [/y]",
        device="cpu",
        children=1,
        ready=0,
        holding=[NASTY[0]],
        model="[/m]",
        up_s=1.0,
        seen_s=0.0,
    )
    status._print(Depth({}, 0, 0, 0, None), [entry], Counts(0, 0, {}, 0, 0, 0, 0))
    told = capsys.readouterr().out
    assert "[/m]" in told
    assert f"cpu@host [/y] waits: {NASTY[0]}" in told
