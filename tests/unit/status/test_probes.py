"""The probes' judgement, phase by phase, and what a probe costs."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import TUSSIS
from tests.support.waiting import PATIENCE
from tussis.worker.status import probes
from tussis.worker.status.rundir import ParentStatus, Phase, RunDir

NOW = 10_000.0


class Clock:
    """The machine's monotonic clock, as the test sets it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[RunDir]:
    """A worker's folder, held by this process."""
    folder = RunDir(tmp_path / "tussis-1-a")
    folder.create("cpu@here")
    yield folder
    folder.remove()


def reasons(run_dir: RunDir) -> tuple[str, str]:
    """Why it is not live, and why not ready; empty when it is."""
    (live,) = probes.live(run_dir.path.parent)
    (ready,) = probes.ready(run_dir.path.parent)
    return live.reason, ready.reason


@pytest.mark.parametrize(
    ("phase", "after_s", "live", "ready"),
    [
        (Phase.STARTING, 299, "", "it is loading the model"),
        (Phase.STARTING, 301, "it did not finish its start within 301 s", "it did not finish its start within 301 s"),
        (Phase.LOADING, 14, "", "it is loading the model"),
        (Phase.LOADING, 16, "it hangs: loading, no beat for 16 s", "it hangs: loading, no beat for 16 s"),
        (Phase.CONSUMING, 14, "", ""),
        (Phase.CONSUMING, 16, "it hangs: consuming, no beat for 16 s", "it hangs: consuming, no beat for 16 s"),
        (Phase.CONNECTING, 1000, "", "no connection to the broker"),
    ],
)
def test_a_beat_counts_for_its_phase(
    run_dir: RunDir, clock: Clock, phase: Phase, after_s: float, live: str, ready: str
) -> None:
    run_dir.beat(phase)
    clock.now += after_s
    if phase in (Phase.CONSUMING, Phase.CONNECTING):
        run_dir.write_status(ParentStatus(clock.now, 2, 2, None if phase is Phase.CONNECTING else NOW, None))
    assert reasons(run_dir) == (live, ready)


def test_a_keeper_that_came_to_a_stand_is_seen(run_dir: RunDir, clock: Clock) -> None:
    run_dir.write_status(ParentStatus(clock.now, 2, 2, NOW, None))
    clock.now += 16
    run_dir.beat(Phase.CONSUMING)
    assert reasons(run_dir)[0] == "the housekeeper hangs: no report for 16 s"


def test_children_holds_and_a_stop_count_for_readiness_only(run_dir: RunDir, clock: Clock) -> None:
    run_dir.beat(Phase.CONSUMING)
    run_dir.write_status(ParentStatus(clock.now, 2, 1, NOW, None))
    assert reasons(run_dir) == ("", "1 of 2 children have loaded the model")
    run_dir.write_status(ParentStatus(clock.now, 2, 2, NOW, None))
    assert reasons(run_dir) == ("", "")
    run_dir.hold("no database answers")
    assert reasons(run_dir) == ("", "a process waits: no database answers")
    run_dir.resume()
    run_dir.stop()
    # Its event loop ends while the children finish: the keeper goes on.
    clock.now += 60
    run_dir.write_status(ParentStatus(clock.now, 2, 2, NOW, None))
    assert reasons(run_dir) == ("", "it is stopping")


def test_starving_counts_after_twice_the_silence(run_dir: RunDir, clock: Clock) -> None:
    run_dir.beat(Phase.CONSUMING)
    run_dir.write_status(ParentStatus(clock.now, 2, 2, NOW, clock.now - 29))
    assert reasons(run_dir)[0] == ""
    run_dir.write_status(ParentStatus(clock.now, 2, 2, NOW, clock.now - 31))
    assert reasons(run_dir)[0] == "took no message for 31 s, although messages wait and children are free"


def test_a_probe_takes_half_a_second_of_the_processor(run_dir: RunDir) -> None:
    run_dir.beat(Phase.LOADING)
    environment = {"PATH": os.environ["PATH"], "TUSSIS_RUN_DIR": str(run_dir.path.parent)}
    took = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ended = subprocess.run(
            [TUSSIS, "health", "live"], env=environment, capture_output=True, timeout=60, check=False
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert ended.returncode == 0, ended
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    # The budget is half a second on a quiet machine; beside other tests a process takes up to twice as long.
    assert min(took) < 0.5 * PATIENCE, took


def test_another_active_model_is_a_remark_and_no_finding(run_dir: RunDir, clock: Clock) -> None:
    clock.now = NOW
    run_dir.beat(Phase.CONSUMING)
    run_dir.write_status(ParentStatus(NOW, 1, 1, NOW, None))
    run_dir.note_active("serves cough@1, active is cough@2")
    run_dir.write_status(ParentStatus(NOW, 1, 1, NOW, None, "tussis.gpu, tussis.any"))
    (ready,) = probes.ready(run_dir.path.parent)
    assert (ready.well, ready.remark) == (True, "serves cough@1, active is cough@2; paused: tussis.gpu, tussis.any")
    run_dir.write_status(ParentStatus(NOW, 1, 1, NOW, None))
    (ready,) = probes.ready(run_dir.path.parent)
    assert (ready.well, ready.remark) == (True, "serves cough@1, active is cough@2")
    run_dir.note_active(None)
    run_dir.note_active(None)
    (ready,) = probes.ready(run_dir.path.parent)
    assert (ready.well, ready.remark) == (True, "")
