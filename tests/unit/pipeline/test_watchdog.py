"""Deadlines that hold even against native code that keeps the GIL."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from tussis.worker.pipeline.watchdog import Stages

# PyDLL keeps the GIL during the call, as a codec that hangs in C may.
_HANG = """
import ctypes
from tussis.worker.pipeline.watchdog import Stages, end_at_deadlines
end_at_deadlines()
with Stages().stage("decode", 0.3):
    ctypes.PyDLL(None).sleep(60)
"""


def test_a_native_call_that_keeps_the_gil_ends_its_process() -> None:
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", _HANG], capture_output=True, text=True, timeout=30)
    assert time.monotonic() - began < 20
    assert ended.returncode == -signal.SIGALRM
    assert 'File "<string>"' in ended.stderr


def test_a_deadline_that_is_set_again_counts_from_then() -> None:
    """Given a stage of many parts, when each part takes less than the deadline, then the process goes on."""
    deadline_s = 20.0
    with Stages().stage("decode", deadline_s) as set_deadline:
        signal.setitimer(signal.ITIMER_REAL, 5.0)
        set_deadline()
        assert 5.0 < signal.getitimer(signal.ITIMER_REAL)[0] <= deadline_s
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_a_stage_in_time_is_timed_and_disarmed() -> None:
    stages = Stages()
    with stages.stage("fetch", 60.0):
        pass
    with stages.stage("fetch", None):
        pass
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert stages.timings_ms.keys() == {"fetch"}
    assert 0 <= stages.timings_ms["fetch"] < 1000


def test_a_stage_that_fails_is_timed_too() -> None:
    stages = Stages()
    with pytest.raises(ValueError, match="broken"), stages.stage("decode", 60.0):
        raise ValueError("broken")
    assert "decode" in stages.timings_ms
