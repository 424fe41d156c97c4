"""A device process with faults on demand: the real process, with its engine's run wrapped.

The child of a faulty worker writes the fault into the first samples of a recording. This process reads it, injects
the fault, and sets these samples to zero. With ``DISTURBED`` set, it also changes every third reply with scores to the
children.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from tests.soak.faulty_worker import note
from tussis.worker.device.wire import Reply, ReplyKind, Wave

#: Marks a recording with a fault. Samples of recordings are at most 2.
_STAMP: Final = np.float32(31_337.0)
_FAULTS: Final = ("segfault", "hang", "fail", "break", "slow", "memory")
#: Names of ``DISTURBANCES``, separated by commas. If set, every third reply with scores is disturbed, by each in turn.
DISTURBED: Final = "FAULT_DEVICE_DISTURBED"
_broken: list[str] = []


def stamped(wave: Wave, fault: str) -> Wave:
    """Return the recording with ``device-NAME`` or ``device-NAME-NUMBER`` in its first three samples."""
    _, name, *seconds = fault.split("-")
    samples = wave.samples.copy()
    samples[:3] = (_STAMP, _FAULTS.index(name), float(seconds[0]) if seconds else 0.0)
    return replace(wave, samples=samples)


def _meet(wave: Wave, recordings: int) -> None:
    from tussis.worker.detector.session import RunFailed

    code, seconds = int(wave.samples[1]), float(wave.samples[2])
    name = _FAULTS[code]
    note(f"device-{name}-{seconds:g}" if name in ("slow", "memory") else f"device-{name}")
    if name == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif name == "hang":
        # PyDLL keeps the GIL, as a driver that hangs may do.
        ctypes.PyDLL(None).sleep(3600)
    elif name == "slow":
        time.sleep(seconds)
    elif name == "memory":
        # The run fails when more recordings than the fault's number share it.
        if recordings > seconds:
            raise RunFailed("Failed to allocate memory for requested buffer of size 1")
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
                _meet(wave, len(waves))
                wave = replace(wave, samples=np.where(np.arange(wave.samples.size) < 3, np.float32(0), wave.samples))
            plain.append(wave)
        if _broken:
            raise RunFailed("broken for good")
        return score(engine, plain)

    return faulty


def _encoded(reply: Reply) -> bytes:
    from tussis.worker.device import wire

    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        wire.send_reply(ours, reply)
        return theirs.recv(2 * wire.MAX_PAYLOAD)


def _shifted(payload: bytes) -> bytes:
    """Return scores that belong to another recording. A child that accepts them stores a wrong answer."""
    values = np.frombuffer(payload, dtype=np.float32).copy()
    values[0] = 1 - values[0]
    return values.tobytes()


def _not_finite(payload: bytes) -> bytes:
    values = np.frombuffer(payload, dtype=np.float32).copy()
    values[-1] = np.nan
    return values.tobytes()


#: What is sent in place of a final reply, and whether the connection is closed after it.
DISTURBANCES: Final[dict[str, Callable[[Reply], tuple[bytes, bool]]]] = {
    "cut-before": lambda reply: (b"", True),
    "cut-in-header": lambda reply: (_encoded(reply)[:10], True),
    "cut-behind-header": lambda reply: (_encoded(reply)[:25], True),
    "stop-behind-header": lambda reply: (_encoded(reply)[:25], False),
    "cut-in-payload": lambda reply: (_encoded(reply)[:-5], True),
    "another-first": lambda reply: (
        _encoded(replace(reply, id=reply.id ^ 1, payload=_shifted(reply.payload))) + _encoded(reply),
        False,
    ),
    "twice": lambda reply: (_encoded(reply) * 2, False),
    "short-scores": lambda reply: (_encoded(replace(reply, payload=reply.payload[:-8])), False),
    "not-finite": lambda reply: (_encoded(replace(reply, payload=_not_finite(reply.payload))), False),
    "noise": lambda reply: (b"\x55" * 300, False),
}


def _disturbing(send: Callable[..., None], chosen: list[str]) -> Callable[..., None]:
    names = itertools.cycle([name for disturbance in chosen for name in ("", "", disturbance)])

    def faulty(connection: socket.socket, reply: Reply) -> None:
        name = next(names) if reply.kind is ReplyKind.SCORES else ""
        if not name:
            send(connection, reply)
            return
        note(f"wire-{name}")
        data, closes = DISTURBANCES[name](reply)
        connection.send(data)
        if closes:
            connection.shutdown(socket.SHUT_RDWR)

    return faulty


def main() -> None:
    """Wrap the calls, then run the device process."""
    from tussis.worker.device import process, wire
    from tussis.worker.device.engine import Engine

    setattr(Engine, "score", _wrapped(Engine.score))  # noqa: B010 - mypy takes no assignment to a method
    if chosen := os.environ.get(DISTURBED):
        vars(wire)["send_reply"] = _disturbing(vars(wire)["send_reply"], chosen.split(","))
    process.main()


if __name__ == "__main__":
    main()
