"""A device process with faults on demand: the real one, with its engine's run wrapped.

A faulty worker's carrier stamps the fault into a recording's first samples; here it is read, met, and taken out.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from tussis.worker.device.wire import Wave
from tussis.worker.soak.faulty_worker import note

#: No recording holds such a sample: they are at most 2.
_STAMP: Final = np.float32(31_337.0)
_FAULTS: Final = ("segfault", "hang", "fail", "break", "slow")
_broken: list[str] = []


def stamped(wave: Wave, fault: str) -> Wave:
    """The recording with ``device-NAME`` or ``device-slow-SECONDS`` in its first three samples."""
    _, name, *seconds = fault.split("-")
    samples = wave.samples.copy()
    samples[:3] = (_STAMP, _FAULTS.index(name), float(seconds[0]) if seconds else 0.0)
    return replace(wave, samples=samples)


def _meet(wave: Wave) -> None:
    from tussis.worker.detector.session import RunFailed

    code, seconds = int(wave.samples[1]), float(wave.samples[2])
    name = _FAULTS[code]
    note(f"device-{name}-{seconds:g}" if name == "slow" else f"device-{name}")
    if name == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif name == "hang":
        # PyDLL keeps the GIL, as a driver that hangs may.
        ctypes.PyDLL(None).sleep(3600)
    elif name == "slow":
        time.sleep(seconds)
    else:
        if name == "break":
            _broken.append(name)
        raise RunFailed("a fault of our own making")


def _wrapped(score: Callable[..., Any]) -> Callable[..., Any]:
    from tussis.worker.detector.session import RunFailed

    def faulty(engine: Any, waves: Sequence[Wave]) -> Any:
        plain = []
        for wave in waves:
            if wave.samples[0] == _STAMP:
                _meet(wave)
                wave = replace(wave, samples=np.where(np.arange(wave.samples.size) < 3, np.float32(0), wave.samples))
            plain.append(wave)
        if _broken:
            raise RunFailed("broken for good")
        return score(engine, plain)

    return faulty


def main() -> None:
    """Wrap, then be a device process."""
    from tussis.worker.device import process
    from tussis.worker.device.engine import Engine

    setattr(Engine, "score", _wrapped(Engine.score))  # noqa: B010 - mypy takes no assignment to a method
    process.main()


if __name__ == "__main__":
    main()
