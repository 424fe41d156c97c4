"""Processes of the training: never forks, and gone after an error."""

from __future__ import annotations

import os
import time

import psutil
import pytest

from training import cache, fit, processes, product, speech

_prepared = 0


def _prepare(value: int) -> None:
    global _prepared
    _prepared = value


def _state(_: int) -> tuple[int, int]:
    return os.getpid(), _prepared


def test_a_process_is_a_new_interpreter_that_was_prepared() -> None:
    """A fork would have the module's state of this process, and the locks that its other threads held."""
    _prepare(1)
    with processes.pool(1, _prepare, 7) as executor:
        pid, prepared = executor.submit(_state, 0).result(timeout=120)
        assert psutil.Process(pid).cmdline() != psutil.Process().cmdline()
    assert (pid != os.getpid(), prepared) == (True, 7)
    assert not psutil.pid_exists(pid)


def test_after_an_error_the_waiting_work_is_dropped() -> None:
    pids = []

    def interrupted() -> None:
        with processes.pool(1) as executor:
            pids.append(executor.submit(_state, 0).result(timeout=120)[0])
            for _ in range(1_000):
                executor.submit(time.sleep, 0.5)
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - began < 120
    assert not psutil.pid_exists(pids[0])


def test_all_processes_of_a_training_are_such() -> None:
    assert processes.CONTEXT.get_start_method() == "spawn"
    assert {vars(module)["pool"] for module in (cache, speech, product)} == {processes.pool}
    assert vars(fit)["CONTEXT"] is processes.CONTEXT
