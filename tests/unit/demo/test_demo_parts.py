"""The demo's parts that need no servers: signals, the model it chooses, the table, the exit status."""

from __future__ import annotations

import errno
import io
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import click
import pytest
from rich.console import Console

from tests.support.models import write_tiny
from tussis.shared.errors import DiskFull, OutputUnwritable
from tussis.shared.states import AnalysisState
from tussis.shared.store.records import Analysis, JobAnswer, Segment
from tussis.worker.cli.models import models
from tussis.worker.demo.summary import Tally, failures, results_table
from tussis.worker.embedded.process import Command
from tussis.worker.embedded.servers import Servers
from tussis.worker.local import model as demo_model
from tussis.worker.local.interrupts import Interrupted, interrupts
from tussis.worker.local.model import choose_model
from tussis.worker.local.screen import Screen
from tussis.worker.local.surroundings import forget_deployments, write_whole, writing

BEGAN = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def answer(key: str, **fields: Any) -> JobAnswer:
    """A result finished a second after the run began, unless told otherwise."""
    known: dict[str, Any] = dict.fromkeys(Analysis.__dataclass_fields__)
    known |= {
        "id": 1,
        "bucket": "tussis-demo",
        "key": key,
        "uri": f"s3://tussis-demo/{key}",
        "state": AnalysisState.SUCCEEDED,
        "decision": True,
        "bag_probability": 0.75,
        "threshold": 0.61,
        "model": "tiny@1",
        "profile": "documented",
        "segments": 2,
        "segments_total": 2,
        "duration_s": 1.5,
        "truncated": False,
        "finished_at": BEGAN + timedelta(seconds=1),
    }
    analysis = Analysis(**(known | fields))
    segments = (Segment(0, 0, 0.0, 2.0, 0.2, -1.4), Segment(0, 1, 0.5, 2.5, 0.9, 2.2))
    return JobAnswer(key, BEGAN, BEGAN, analysis, segments if analysis.state is AnalysisState.SUCCEEDED else ())


def failure(key: str, error_class: str) -> JobAnswer:
    return answer(
        key,
        state=AnalysisState.FAILED,
        decision=None,
        bag_probability=None,
        duration_s=None,
        error_class=error_class,
        error_message="for a reason",
    )


def rendered(tally: Tally, width: int) -> list[str]:
    target = io.StringIO()
    console = Console(file=target, width=width)
    console.print(results_table(tally, width, Screen().safe))
    return [line.strip() for line in target.getvalue().splitlines()]


class TestInterrupts:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
    def test_a_signal_raises_once_and_the_clean_up_is_left_alone(self, number: signal.Signals) -> None:
        before = signal.getsignal(number)
        with interrupts():
            with pytest.raises(Interrupted) as raised:
                signal.raise_signal(number)
            signal.raise_signal(number)
        assert raised.value.status == 128 + number
        assert signal.getsignal(number) is before

    def test_a_signal_that_is_ignored_stays_so(self) -> None:
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with interrupts():
                signal.raise_signal(signal.SIGHUP)
                assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        finally:
            signal.signal(signal.SIGHUP, before)

    def test_disarmed_it_raises_nothing(self) -> None:
        with interrupts() as handled:
            handled.disarm()
            signal.raise_signal(signal.SIGTERM)


class TestModel:
    class NoServers:
        """Takes the command that would run."""

        def __init__(self) -> None:
            self.commands: list[Command] = []

        def run_beside(self, command: Command) -> None:
            self.commands.append(command)

    @pytest.fixture
    def servers(self) -> NoServers:
        return self.NoServers()

    def test_the_one_that_is_given_comes_first(self, tmp_path: Path, servers: NoServers) -> None:
        path = write_tiny(tmp_path)

        choice = choose_model(path, tmp_path, cast(Servers, servers))

        assert (choice.wait(), choice.random) == (path, False)
        assert servers.commands == []

    def test_the_shipped_one_comes_next(
        self, tmp_path: Path, servers: NoServers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write_tiny(tmp_path)
        monkeypatch.setattr(demo_model, "default_model", lambda: path)

        choice = choose_model(None, tmp_path, cast(Servers, servers))

        assert (choice.wait(), choice.random) == (path, False)

    def test_a_random_one_is_made_once_for_the_folder(
        self, tmp_path: Path, servers: NoServers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(demo_model, "default_model", lambda: None)

        choice = choose_model(None, tmp_path, cast(Servers, servers))

        assert choice.random
        ((_, *words),) = [command.argv for command in servers.commands]
        context = models.make_context("models", words[1:])
        assert words[0] == "models"
        _, export, arguments = models.resolve_command(context, words[1:])
        assert isinstance(export, click.Command)
        assert export.make_context("export", arguments).params["out"] == choice.path
        choice.path.write_bytes(b"")
        choice.path.with_suffix(".json").write_text("{}")
        again = choose_model(None, tmp_path, cast(Servers, servers))
        assert (again.path, again.random, again.making) == (choice.path, True, None)
        assert len(servers.commands) == 1


class TestSummary:
    def test_a_wide_table_names_model_and_profile_of_each(self) -> None:
        tally = Tally.of([answer("b.wav", decision=False, bag_probability=0.1), failure("a.wav", "corrupt")], BEGAN)

        rows = [" ".join(line.split()) for line in rendered(tally, 140) if line.startswith("s3://")]

        assert rows == [
            "s3://tussis-demo/a.wav - corrupt - - tiny@1 documented",
            "s3://tussis-demo/b.wav 1.5 s 0.100 no cough 2 0.5 to 2.5 s tiny@1 documented",
        ]
        assert failures(tally) == [("a.wav", "corrupt: for a reason")]

    def test_a_narrow_one_fits(self) -> None:
        tally = Tally.of([answer("x" * 60), answer("long.wav", truncated=True, segments=32, segments_total=40)], BEGAN)

        lines = rendered(tally, 80)

        assert max(map(len, lines)) <= 80
        assert "long.wav 1.5 s 0.750 cough 32 of 40" in [" ".join(line.split()) for line in lines]

    def test_of_many_results_the_failures_are_shown(self) -> None:
        answers = [answer(f"{number:04d}.wav") for number in range(200)] + [failure("zzzz.wav", "empty")]

        lines = rendered(Tally.of(answers, BEGAN), 140)

        assert lines[0] == "60 of 201 results"
        assert any(line.startswith("s3://tussis-demo/zzzz.wav") for line in lines)
        assert sum(1 for line in lines if line.startswith("s3://")) == 60

    def test_names_cannot_play_tricks_on_the_terminal(self) -> None:
        lines = rendered(Tally.of([answer("\x1b[2J[red]a\n.wav")], BEGAN), 140)

        assert any(line.startswith(r"s3://tussis-demo/\x1b[2J[red]a\n.wav") for line in lines)

    def test_the_exit_status(self) -> None:
        good, broken, ours = answer("a.wav"), failure("b.wav", "not_audio"), failure("c.wav", "worker_crashed")

        assert Tally.of([good], BEGAN).status(own_recordings=False) == 0
        assert Tally.of([good, broken], BEGAN).status(own_recordings=True) == 0
        assert Tally.of([good, broken], BEGAN).status(own_recordings=False) == 1
        assert Tally.of([good, ours], BEGAN).status(own_recordings=True) == 1

    def test_what_was_finished_before_the_run_is_told_apart(self) -> None:
        old = answer("a.wav", finished_at=BEGAN - timedelta(hours=1))

        assert Tally.of([old, answer("b.wav")], BEGAN).before == (BEGAN - timedelta(hours=1),)


class TestSurroundings:
    def test_settings_of_other_servers_are_dropped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # A copy: what is dropped here, the folder of recordings among it, is still needed by the tests that follow.
        monkeypatch.setattr(os, "environ", os.environ.copy())
        for name in ("TUSSIS_BROKER_URL", "AWS_PROFILE", "PGSSLMODE", "https_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, "elsewhere")
        monkeypatch.setenv("OMP_NUM_THREADS", "1")

        forget_deployments()

        assert "elsewhere" not in os.environ.values()
        assert os.environ["OMP_NUM_THREADS"] == "1"

    def test_a_full_disk_is_the_operators(self, tmp_path: Path) -> None:
        with pytest.raises(DiskFull, match=r"the disk is full: cannot write .*/x"), writing(tmp_path / "x"):
            raise OSError(errno.ENOSPC, "No space left on device")
        with pytest.raises(OutputUnwritable, match=r"cannot write .*/no/x: No such file or directory"):
            write_whole(tmp_path / "no" / "x", b"")

    def test_a_secret_file_is_its_owners_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "environment"
        path.write_text("old")

        write_whole(path, b"new", mode=0o600)

        assert path.read_text() == "new"
        assert path.stat().st_mode & 0o777 == 0o600
        assert os.listdir(tmp_path) == ["environment"]
