"""The parent's side: starting, replacing and ending a device process, with small scripts in its place."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.waiting import wait_until
from tests.unit.device.test_device_engine import arguments
from tussis.worker.device import host
from tussis.worker.device.host import DeviceHost
from tussis.worker.status.rundir import RunDir

#: Seconds for an interpreter to start and say something on a busy machine.
SOON_S = 60.0

_SAYS = """
import json, os, select, sys, time
order = json.loads(sys.argv[1])
def say(state, message=""):
    report = {"pid": os.getpid(), "state": state, "message": message, "at": time.monotonic()}
    path = order["run_dir"] + "/device.json"
    with open(path + ".draft", "w") as file:
        json.dump(report, file)
    os.replace(path + ".draft", path)
"""
#: Ready, and leaves when the lifeline is cut.
GOOD = _SAYS + "say('ready'); select.select([order['lifeline']], [], [])"
#: Ready, and deaf.
STUBBORN = _SAYS + "say('ready'); time.sleep(3600)"
REFUSING = _SAYS + "say('refused', 'no such device')"

Make = Callable[[str], DeviceHost]


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[RunDir]:
    run_dir = RunDir(tmp_path / "tussis-1")
    run_dir.create("gpu@test")
    yield run_dir
    run_dir.remove()


@pytest.fixture
def ended() -> list[int]:
    """The process ids that the host reported as ended."""
    return []


@pytest.fixture
def make(run_dir: RunDir, tiny_model: Path, ended: list[int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr(host, "_PAUSES_S", (0.0,) * 4)
    made: list[DeviceHost] = []

    def one(script: str) -> DeviceHost:
        told = replace(arguments(tiny_model), run_dir=str(run_dir.path))
        made.append(DeviceHost(told, run_dir, ended.append, entry=["-c", script]))
        return made[-1]

    yield one
    for each in made:
        each.close()


def look_until(each: DeviceHost, condition: Callable[[], object], what: str) -> None:
    """Look, as the keeper does, until the condition holds."""

    def seen() -> bool:
        each.look()
        return bool(condition())

    wait_until(seen, SOON_S, what)


def test_a_process_that_dies_is_replaced_at_once_and_the_worker_holds_meanwhile(
    make: Make, run_dir: RunDir, ended: list[int]
) -> None:
    each = make(GOOD)
    each.start()
    look_until(each, lambda: each.ready, "the first process")
    first = each.pid
    assert first is not None
    os.kill(first, 9)
    look_until(each, lambda: ended, "its end to be seen")
    assert ended == [first]
    assert not each.ready
    assert list(run_dir.holds().values()) == ["the device process is not available: it ended with exit status -9"]
    look_until(each, lambda: each.ready, "the next process")
    assert each.pid != first
    assert run_dir.holds() == {}


def test_a_refusal_is_the_worker_s(make: Make) -> None:
    each = make(REFUSING)
    each.start()
    look_until(each, lambda: each.refused, "the refusal")
    assert each.refused == "no such device"
    assert not each.ready


def test_false_starts_are_bounded(make: Make, ended: list[int]) -> None:
    each = make("raise SystemExit(7)")
    each.start()
    look_until(each, lambda: each.refused, "the last try")
    assert each.refused == "the device process failed to start 5 times: it ended with exit status 7"
    assert len(ended) == len(set(ended)) == 5


def test_a_process_without_a_sign_of_life_is_killed(
    make: Make, ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    each = make(STUBBORN)
    each.start()
    look_until(each, lambda: each.ready, "the process")
    monkeypatch.setattr(host, "_SILENCE_S", -order_deadline(each))
    look_until(each, lambda: ended, "its end")


def test_a_process_that_cannot_be_killed_ends_the_worker_and_holds_up_no_look(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a driver that keeps a killed process, then no look waits for its end, and the worker is told why."""
    wait = subprocess.Popen.wait

    def bounded(process: Any, timeout: float | None = None) -> int:
        assert timeout is not None, "a wait without an end"
        return wait(process, timeout)

    each = make(STUBBORN)
    each.start()
    look_until(each, lambda: each.ready, "the process")
    pid = each.pid
    with monkeypatch.context() as patch:
        patch.setattr(subprocess.Popen, "kill", lambda process: None)
        patch.setattr(subprocess.Popen, "wait", bounded)
        patch.setattr(host, "_SILENCE_S", -order_deadline(each))
        patch.setattr(host, "_DEATH_S", 0.1)
        patch.setattr(host, "_LEAVE_S", 0.1)
        look_until(each, lambda: each.refused, "the refusal")
        assert not each.ready
    assert each.refused is not None
    assert each.refused.startswith(f"the device process {pid} did not end after SIGKILL (it sent no report for ")


def test_a_system_without_room_for_a_process_is_tried_again(
    make: Make, run_dir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    popen = subprocess.Popen
    lacks = [OSError(errno.ENOMEM, "Cannot allocate memory"), OSError(errno.EAGAIN, "Resource temporarily unavailable")]

    def start(*arguments: Any, **options: Any) -> Any:
        if lacks:
            raise lacks.pop(0)
        return popen(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", start)
    each = make(GOOD)
    each.start()
    assert not each.ready
    assert "could not be started: [Errno 12]" in next(iter(run_dir.holds().values()))
    look_until(each, lambda: each.ready, "the process")
    assert run_dir.holds() == {}


def test_a_lack_of_memory_at_the_start_is_no_refusal(make: Make, ended: list[int]) -> None:
    """Given a model that does not fit, then it is tried again, and the reason is told when the tries are used up."""
    each = make(
        "from tussis.shared.errors import ModelRefused\n"
        "from tussis.worker.device import process\n"
        "def serve(*_):\n"
        "    reason = 'Failed to allocate memory'\n"
        "    raise ModelRefused(f'onnxruntime cannot load m.onnx: {reason}') from RuntimeError(reason)\n"
        "process.serve = serve\n"
        "process.main()\n"
    )
    each.start()
    look_until(each, lambda: each.refused, "the last try")
    assert each.refused == (
        "the device process failed to start 5 times: it ended with exit status 4:"
        " onnxruntime cannot load m.onnx: Failed to allocate memory"
    )
    assert len(ended) == 5


def order_deadline(each: DeviceHost) -> float:
    return each._arguments.deadline_s


@pytest.mark.parametrize("script", [GOOD, STUBBORN])
def test_closing_leaves_no_process(make: Make, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_LEAVE_S", SOON_S if script == GOOD else 0.1)
    each = make(script)
    each.start()
    look_until(each, lambda: each.ready, "the process")
    process = psutil.Process(each.pid)
    each.close()
    assert not process.is_running()
