"""What a worker's processes tell each other."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from tussis.worker.status.rundir import AttemptNote, ChildReport, RunDir


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    folder = RunDir(tmp_path / "run")
    folder.create()
    return folder


def test_a_child_reports_and_is_forgotten(run_dir: RunDir) -> None:
    run_dir.report("ready")
    assert run_dir.children() == {os.getpid(): ChildReport(os.getpid(), "ready")}
    run_dir.report("refused", "no such model")
    assert run_dir.children()[os.getpid()].message == "no such model"
    run_dir.forget(os.getpid())
    assert run_dir.children() == {}


def test_holding_is_seen_until_it_is_over(run_dir: RunDir) -> None:
    run_dir.hold("the database is away")
    assert run_dir.holds() == {os.getpid(): "the database is away"}
    run_dir.resume()
    run_dir.resume()
    assert run_dir.holds() == {}


def test_a_stop_counts_from_its_first_call(run_dir: RunDir) -> None:
    assert run_dir.stopping_for() is None
    run_dir.stop()
    os.utime(run_dir.path / "stopping", (0, 0))
    run_dir.stop()
    elapsed = run_dir.stopping_for()
    assert elapsed is not None
    assert elapsed > 1e9


def test_the_folder_is_its_owners_and_goes_away(run_dir: RunDir) -> None:
    assert run_dir.path.stat().st_mode & 0o777 == 0o700
    run_dir.report("ready")
    run_dir.hold("x")
    run_dir.remove()
    assert not run_dir.path.exists()


def test_a_note_that_is_half_written_is_skipped(run_dir: RunDir) -> None:
    """Given a child that is writing its note, or a full disk, then the notes of the others are read."""
    token, job_id = uuid.uuid4(), str(uuid.uuid4())
    run_dir.note_attempt(token, job_id)
    (run_dir.path / "attempt-1").write_text("")
    (run_dir.path / "attempt-2").write_text(f"{token} {job_id[:5]}")
    assert run_dir.attempts() == {os.getpid(): AttemptNote(os.getpid(), token, job_id)}
    run_dir.end_attempt()
    assert run_dir.attempts() == {}
