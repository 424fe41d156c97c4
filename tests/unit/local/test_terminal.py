"""What others wrote (keys, messages, paths) neither breaks a table nor reaches the terminal as a command."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from tussis.shared.depth import Depth, SentJobs
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
    status._print(Depth({}, 0, 0, 0, None), [entry], StateCounts(0, 0, {}, 0, 0, 0, 0), [])
    told = capsys.readouterr().out
    assert "[/m]" in told
    assert f"cpu@host [/y] waits: {NASTY[0]}" in told


def test_status_names_the_queues_from_which_no_worker_takes(capsys: pytest.CaptureFixture[str]) -> None:
    entry = status.WorkerEntry("one", "cpu", 1, 1, [], "cough@3", 1.0, 0.0)
    queues = ("any", "cpu", "gpu", "any@cough", "cpu@cough@3", "gpu@cough@3", "any@cough@4", "cpu@cough@4")
    taken = [queue for queue in queues if entry.takes(f"tussis.{queue}")]
    assert taken == ["any", "cpu", "any@cough", "cpu@cough@3"]
    unserved = [
        status.UnservedQueue.of(SentJobs("tussis.gpu", 1, 1_767_225_600.5)),
        status.UnservedQueue.of(SentJobs("tussis.any@cough@4", 3000, 1_767_225_600.5)),
    ]

    status._print(Depth({}, 0, 0, 0, None), [entry], StateCounts(0, 0, {}, 0, 0, 0, 0), unserved)

    told = " ".join(capsys.readouterr().out.split())
    since = "since 2026-01-01T00:00:00+00:00"
    assert f"tussis.gpu: no live worker takes its messages: 1 open job waits for a gpu worker, {since}" in told
    assert f"takes its messages: 3,000 open jobs wait for any worker with model cough@4, {since}" in told
