"""Processes that share the work: every item once, CPU time of all of them, and no hanging when one dies."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.tiny import write_tiny
from tussis.shared.errors import NotInstalled, TussisError
from tussis.worker.bench.crew import Crew, Spent
from tussis.worker.bench.floor import Layout, Rounds, floor, layouts, unsteady
from tussis.worker.detector.detector import Detector


def note(folder: str) -> Callable[[int], object]:
    """Work that leaves a file for each item; -1 ends the process."""

    def work(item: int) -> None:
        if item < 0:
            os._exit(3)
        with (Path(folder) / str(item)).open("x"):
            pass

    return work


def test_every_item_is_done_once(tmp_path: Path) -> None:
    with Crew(2, note, str(tmp_path)) as crew:
        first = crew.run(range(50))
        crew.run(range(50, 60))

    assert sorted(int(path.name) for path in tmp_path.iterdir()) == list(range(60))
    assert first.wall_s > 0
    assert first.cpu_s > 0


def test_a_process_that_ends_is_noticed(tmp_path: Path) -> None:
    with Crew(1, note, str(tmp_path)) as crew, pytest.raises(TussisError, match="ended or hangs"):
        crew.run([1, -1])


def refuse() -> Callable[[int], object]:
    raise NotInstalled("this part is not installed")


def test_a_process_that_cannot_begin_says_why() -> None:
    with pytest.raises(NotInstalled, match="this part is not installed"), Crew(1, refuse):
        pass


def test_the_floor_runs_a_model_that_follows_the_contract(tmp_path: Path) -> None:
    model = write_tiny(tmp_path)
    detector = Detector.load(model, intra_op_threads=1)
    detector.warm_up()

    with floor(model, Layout(1, 1), [1, 3]) as crew:
        spent = crew.run([1, 3, 3])

    assert spent.wall_s > 0


def test_layouts_use_every_core_once() -> None:
    assert layouts(2) == (Layout(1, 2), Layout(2, 1))
    assert layouts(1) == (Layout(1, 1),)
    assert [layout.name for layout in layouts(4)] == ["1 x 4", "4 x 1"]


def test_rounds_are_told_by_their_medians_and_void_when_they_spread() -> None:
    rounds = Rounds((Spent(1.0, 5.0), Spent(1.2, 6.0), Spent(1.1, 7.0)))

    assert (rounds.wall_s, rounds.cpu_s) == (1.1, 6.0)
    assert rounds.spread == pytest.approx(0.2 / 1.1)
    assert unsteady(rounds.spread).startswith("the floor varied by 18%, more than 10%: end the other programs")
    assert unsteady(0.1) == ""
