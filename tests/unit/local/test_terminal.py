"""What others wrote (keys, messages, paths) neither breaks a table nor reaches the terminal as a command."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from tussis.shared.depth import Depth
from tussis.shared.store.records import StateCounts
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
    status._print(Depth({}, 0, 0, 0, None), [entry], StateCounts(0, 0, {}, 0, 0, 0, 0))
    told = capsys.readouterr().out
    assert "[/m]" in told
    assert f"cpu@host [/y] waits: {NASTY[0]}" in told


def test_status_names_the_model_queues_from_which_no_worker_takes(capsys: pytest.CaptureFixture[str]) -> None:
    entry = status.WorkerEntry("one", "cpu", 1, 1, [], "cough@3", 1.0, 0.0)
    waiting = {
        "tussis.any": {5: 1},
        "tussis.gpu": {5: 1},
        "tussis.any@cough": {5: 1},
        "tussis.cpu@cough@3": {0: 1},
        "tussis.gpu@cough@3": {5: 7},
        "tussis.any@cough@4": {5: 2, 6: 1},
        "tussis.any@gone": {},
    }
    depth = Depth(waiting, 0, 0, 0, None)
    assert status.unserved_queues(depth, [entry]) == ["tussis.gpu@cough@3", "tussis.any@cough@4"]
    assert len(status.unserved_queues(depth, [])) == 4
    status._print(depth, [entry], StateCounts(0, 0, {}, 0, 0, 0, 0))
    told = capsys.readouterr().out
    assert "tussis.any@cough@4: no live worker takes its messages (3)" in told
    assert "gone" not in told
