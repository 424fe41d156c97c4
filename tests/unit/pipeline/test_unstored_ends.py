"""A failure that cannot be stored is tried again for a bounded time, then kept as a dead letter."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.store import model_facts
from tussis.shared.errors import DatabaseFault, ObjectMissing
from tussis.shared.messages import Job
from tussis.shared.queues import Device
from tussis.shared.settings import load_settings
from tussis.worker.outcome import Deferred, Failed, Outcome
from tussis.worker.pipeline import failure_policy, objects, process
from tussis.worker.pipeline.context import WorkerContext
from tussis.worker.status.rundir import RunDir

JOB = Job(job_id=str(uuid.uuid4()), bucket="clinic", key="a.wav", enqueued_at=1.0)
SETTINGS = load_settings(retry_base_s=1.0, retry_cap_s=4.0, retry_total_s=10.0)


class Store:
    """Stores no failure, and a dead letter after some tries."""

    def __init__(self, error: Exception, letters_refused: int = 0) -> None:
        self._error, self._left = error, letters_refused
        self.letters: list[tuple[Any, ...]] = []

    def refuse(self, *_: Any) -> int:
        raise self._error

    def dead_letter(self, *letter: Any, ended_job: bool) -> None:
        assert ended_job
        if self._left:
            self._left -= 1
            raise DatabaseFault("no letters either")
        self.letters.append(letter)


class Ledger:
    """Counts what was deferred, as the real one does."""

    def __init__(self) -> None:
        self.counted = 0

    def faults(self, job_id: str) -> int:
        return self.counted


class Scorer:
    class manifest:
        profile = "documented"
        coverage = "head"
        name = "cough"
        version = "1"


def make(tmp_path: Path, store: Store, ledger: Ledger) -> WorkerContext:
    folder = RunDir(tmp_path / "run")
    folder.create("one")
    nothing = cast(Any, None)
    return WorkerContext(
        SETTINGS,
        cast(Any, store),
        cast(Any, ledger),
        nothing,
        cast(Any, Scorer),
        model_facts(),
        "one",
        Device.CPU,
        folder,
    )


@pytest.fixture(autouse=True)
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: Any) -> None:
        raise ObjectMissing

    monkeypatch.setattr(objects, "resolve", resolve)
    monkeypatch.setattr(failure_policy, "_FIRST_PAUSE_S", 0.001)


@pytest.mark.parametrize("error", [DatabaseFault("refused by a trigger"), KeyError("a bug"), UnicodeError("odd")])
@pytest.mark.parametrize("letters_refused", [0, 3])
def test_a_failure_that_cannot_be_stored_ends_all_the_same(
    tmp_path: Path, error: Exception, letters_refused: int
) -> None:
    ledger = Ledger()
    store = Store(error, letters_refused)
    here = make(tmp_path, store, ledger)
    outcomes: list[Outcome] = []
    while not outcomes or isinstance(outcomes[-1], Deferred):
        outcomes.append(process.process(JOB, here))
        ledger.counted += 1
        assert ledger.counted < 10
    # Ceilings of 1, 2 and 4 s are within 10 s, another 4 s is not.
    expected = getattr(error, "error_class", "internal")
    deferred = [outcome for outcome in outcomes if isinstance(outcome, Deferred)]
    assert [(outcome.error_class, outcome.analysis_id) for outcome in deferred] == [(expected, None)] * 3
    assert outcomes[-1] == Failed(None, "expired")
    [(raw, job_id, error_class, message)] = store.letters
    assert json.loads(raw)["key"] == "a.wav"
    assert (job_id, error_class) == (JOB.job_id, "expired")
    assert str(error) in message
