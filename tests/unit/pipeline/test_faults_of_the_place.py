"""A full disk, a database that refuses, a stop in between: none of them becomes a recording's fault."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest

from tests.support.store import model_facts
from tussis.shared.errors import (
    DatabaseUnavailable,
    DiskFull,
    DownloadSlow,
    InvalidUri,
    MalformedMessage,
    ObjectMissing,
    StorageAccessDenied,
)
from tussis.shared.messages import Job
from tussis.shared.queues import Device
from tussis.shared.settings import load_settings
from tussis.shared.store.records import Claimed
from tussis.worker.detector.arithmetic import Arithmetic
from tussis.worker.outcome import Failed, HandedBack, Stopping
from tussis.worker.parent.housekeeper import Housekeeper
from tussis.worker.pipeline import failure_policy, object_bytes, objects, process
from tussis.worker.pipeline.access import DENIED_IN_A_ROW
from tussis.worker.pipeline.child import ChildSetup
from tussis.worker.pipeline.context import WorkerContext
from tussis.worker.pipeline.dead_letters import dead_letter
from tussis.worker.pipeline.watchdog import Stages
from tussis.worker.status.rundir import Phase, RunDir

JOB = Job(job_id=str(uuid.uuid4()), bucket="clinic", key="a.wav", enqueued_at=1.0)
CLAIM = Claimed(1, datetime(2026, 1, 1, tzinfo=UTC), uuid.uuid4(), 1)
SETTINGS = load_settings(broker_url="redis://127.0.0.1:1/0")


class Store:
    """Fails a number of times, then works. ``then`` runs at each failure."""

    def __init__(self, error: Exception, times: int, then: Callable[[], None] = lambda: None) -> None:
        self._error, self._left, self._then = error, times, then
        self.letters: list[str] = []

    def _try(self) -> None:
        if self._left:
            self._left -= 1
            self._then()
            raise self._error

    def fail(self, *_: Any) -> bool:
        self._try()
        return True

    def release(self, *_: Any) -> bool:
        self._try()
        return True

    def dead_letter(self, raw: str, *_: Any, ended_job: bool = False) -> None:
        self._try()
        self.letters.append(raw)


class Scorer:
    class manifest:
        profile = "documented"
        coverage = "head"

    arithmetic = Arithmetic("cpu", "original", "a processor")


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    folder = RunDir(tmp_path / "run")
    folder.create("one")
    return folder


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure_policy, "_FIRST_PAUSE_S", 0.001)


def make(run_dir: RunDir, store: Store) -> WorkerContext:
    nothing = cast(Any, None)
    return WorkerContext(
        SETTINGS, cast(Any, store), nothing, nothing, cast(Any, Scorer), model_facts(), "one", Device.CPU, run_dir
    )


def conclude(here: WorkerContext, error: Any) -> Any:
    return failure_policy.end_attempt(JOB, here, CLAIM, Stages(here.meter.stage), error)


def test_a_full_disk_of_the_database_is_waited_out(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given an answer that cannot be written, when the disk has room again, then that answer is written."""
    here = make(run_dir, Store(DiskFull(), 3))
    log = Mock()
    monkeypatch.setattr(failure_policy, "_log", log)
    assert conclude(here, ObjectMissing()) == Failed(1, "object_missing")
    assert [(call.args[0], call.kwargs["error_class"]) for call in log.error.call_args_list] == [
        ("paused", "disk_full")
    ]
    assert run_dir.holds() == {}


@pytest.mark.parametrize("error", [DiskFull(), DatabaseUnavailable()])
def test_a_stop_while_an_end_waits_hands_the_message_back(run_dir: RunDir, error: Exception) -> None:
    """The store was never told, so that the message has to tell the next attempt."""
    here = make(run_dir, Store(error, 100, run_dir.stop))
    assert conclude(here, ObjectMissing()) == HandedBack(unreleased=str(CLAIM.token))


def test_a_claim_that_cannot_be_given_back_ends_the_attempt_all_the_same(run_dir: RunDir) -> None:
    assert conclude(make(run_dir, Store(DiskFull(), 100)), Stopping()) == HandedBack(str(CLAIM.token))


def test_a_claim_that_was_given_back_leaves_nothing_to_tell(run_dir: RunDir) -> None:
    assert conclude(make(run_dir, Store(DiskFull(), 0)), Stopping()) == HandedBack(None)


def test_an_error_of_no_kind_ends_as_a_failure_and_does_not_come_round(run_dir: RunDir) -> None:
    assert conclude(make(run_dir, Store(DiskFull(), 0)), InvalidUri("odd")) == Failed(1, "internal")


def test_a_run_directory_that_cannot_be_written_is_no_recording_s_fault(run_dir: RunDir) -> None:
    here = make(run_dir, Store(DatabaseUnavailable(), 2))
    run_dir.remove()
    assert conclude(here, ObjectMissing()) == Failed(1, "object_missing")
    run_dir.beat(Phase.CONSUMING)
    assert not run_dir.path.exists()


def test_one_recording_refused_for_ever_pauses_nobody_but_many_in_a_row_do(run_dir: RunDir) -> None:
    here = make(run_dir, Store(DiskFull(), 0))
    denied = StorageAccessDenied()
    assert not any(here.access.concerns_all(JOB, denied, here.s3) for _ in range(3 * DENIED_IN_A_ROW))
    others = [Job(job_id=JOB.job_id, bucket="clinic", key=f"{n}.wav", enqueued_at=1.0) for n in range(DENIED_IN_A_ROW)]
    told = [here.access.concerns_all(job, denied, here.s3) for job in others]
    assert told.index(True) == DENIED_IN_A_ROW - 2
    here.access.granted(JOB)
    assert not here.access.concerns_all(JOB, denied, here.s3)


def test_a_dead_letter_keeps_whatever_was_sent(run_dir: RunDir) -> None:
    store = Store(DiskFull(), 0)
    for raw in ({"unreadable": {"raw": 5}}, {"message": {"job_id": "\ud800"}}, [1]):
        dead_letter(make(run_dir, store), raw, MalformedMessage())
    assert store.letters == ['{"unreadable": {"raw": 5}}', '{"message": {"job_id": "\\ud800"}}', "[1]"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyError("odd"), DatabaseUnavailable()])
def test_a_duty_of_the_keeper_that_fails_ends_no_other(run_dir: RunDir, error: Exception) -> None:
    housekeeper = Housekeeper(ChildSetup(SETTINGS, Device.CPU, "one", Path("cough.onnx"), 1, run_dir))
    done: list[str] = []

    def fail(what: str) -> None:
        done.append(what)
        raise error

    housekeeper._do(fail, "first")
    housekeeper._do(done.append, "second")
    assert done == ["first", "second"]


def test_a_trickle_is_found_slow_long_before_the_watchdog_takes_it_for_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 1000 bytes a second, the deadline of 60 s is noticed well within the watchdog's slack."""
    now = 0.0

    class Body:
        def read(self, amount: int) -> bytes:
            nonlocal now
            now += amount / 1000
            return bytes(amount)

        def close(self) -> None:
            pass

    class S3:
        def get_object(self, **_: str) -> dict[str, Any]:
            return {"ContentLength": 10_000_000, "ETag": f'"{"0" * 32}"', "Body": Body()}

    monkeypatch.setattr(time, "monotonic", lambda: now)
    version = object_bytes.ObjectVersion("clinic", "a.wav", "0" * 32, None, None)
    with pytest.raises(DownloadSlow):
        objects.fetch(S3(), version, max_bytes=100_000_000, deadline_s=60.0)
    assert now < 60.0 + process._DOWNLOAD_SLACK_S / 2
