"""The device process's server against children that misbehave, and runs that lack memory. The engine is a stand-in."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pytest

from tests.support.waiting import wait_until
from tests.unit.device.test_device_engine import arguments
from tests.unit.device.test_device_scorer import answer, assert_own
from tests.unit.device.test_device_wire import header
from tussis.shared.errors import InferenceFailed
from tussis.worker.detector.contract import Graph
from tussis.worker.detector.detector import Scores
from tussis.worker.detector.session import RunFailed
from tussis.worker.device import server as server_module
from tussis.worker.device import wire
from tussis.worker.device.engine import Engine, noise
from tussis.worker.device.meter import NoDeviceMeter
from tussis.worker.device.server import BROKEN, Server
from tussis.worker.device.wire import Gone, Reply, ReplyKind, ScoreRequest, Wave

#: Seconds for anything to happen on a busy machine.
SOON_S = 60.0


@dataclass
class StandIn:
    """An engine whose runs do what a test prescribes."""

    fails: Callable[[Sequence[Wave]], Exception | None] = lambda waves: None
    sound: bool = True
    graph: Graph = field(default_factory=lambda: Graph(17, False, None, ()))
    runs: list[int] = field(default_factory=list)
    released: int = 0

    def score(self, waves: Sequence[Wave]) -> list[Scores | InferenceFailed]:
        self.runs.append(len(waves))
        error = self.fails(waves)
        if error is not None:
            raise error
        return [answer(wave) for wave in waves]

    def works(self) -> bool:
        return self.sound

    def failure(self, reason: str) -> InferenceFailed:
        return InferenceFailed(f"failed: {reason}")

    def release_memory(self) -> None:
        self.released += 1


@dataclass
class Served:
    """A server at work."""

    server: Server
    stack: ExitStack

    def connect(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.stack.enter_context(ours)
        self.server.attend(theirs)
        return ours


class Serve(Protocol):
    """Starts a server."""

    def __call__(self, engine: StandIn, wait_s: float = 20.0) -> Served: ...


@pytest.fixture
def serve(tiny_model: Path) -> Iterator[Serve]:
    with ExitStack() as stack:

        def one(engine: StandIn, wait_s: float = 20.0) -> Served:
            told = arguments(tiny_model, batch_wait_ms=1000 * wait_s, batch_segments=512)
            made = Server(cast(Engine, engine), told, NoDeviceMeter())
            thread = threading.Thread(target=made.run, daemon=True)
            thread.start()
            stack.callback(thread.join, SOON_S)
            stack.callback(made.close)
            return Served(made, stack)

        yield one


def request(seed: int, segments: int = 1, *, exclusive: bool = False) -> ScoreRequest:
    return ScoreRequest(seed, noise(segments, seed), exclusive)


def final(connection: socket.socket, of: ScoreRequest) -> Reply:
    """The final reply to a request; each one has its id."""
    while True:
        reply = wire.receive_reply(connection, time.monotonic() + SOON_S)
        assert reply.id == of.id
        if reply.kind is not ReplyKind.BEGUN:
            return reply


def assert_served(connection: socket.socket, seed: int) -> None:
    asked = request(seed)
    wire.send_request(connection, asked)
    reply = final(connection, asked)
    assert reply.kind is ReplyKind.SCORES
    assert_own(wire.unpack_scores(reply.payload, 1), asked.wave)


def assert_hung_up_on(connection: socket.socket) -> None:
    with pytest.raises(Gone):
        wire.receive_reply(connection, time.monotonic() + SOON_S)


def _half_a_header(connection: socket.socket) -> None:
    connection.sendall(header()[:10])


def _half_a_request(connection: socket.socket) -> None:
    connection.sendall(header() + bytes(1000))


@pytest.mark.parametrize("sends", [_half_a_header, _half_a_request])
def test_half_a_request_is_waited_for_no_longer_than_the_limit(
    serve: Serve, sends: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "REST_S", 0.1)
    served = serve(StandIn())
    bad = served.connect()
    sends(bad)
    assert_hung_up_on(bad)
    monkeypatch.setattr(wire, "REST_S", SOON_S)
    assert_served(served.connect(), 1)


def test_a_child_that_goes_away_in_the_middle_leaves_the_others(serve: Serve) -> None:
    served = serve(StandIn())
    for sends in (_half_a_header, _half_a_request):
        gone = served.connect()
        sends(gone)
        gone.close()
    waiting = served.connect()
    wire.send_request(waiting, request(7))
    waiting.close()
    wait_until(lambda: not served.server._children, SOON_S, "every end to be seen")
    assert_served(served.connect(), 1)


def test_one_that_says_nothing_delays_the_others_by_the_batch_s_wait_only(serve: Serve) -> None:
    served = serve(StandIn(), wait_s=0.01)
    served.connect()
    good = served.connect()
    for seed in range(3):
        assert_served(good, seed)


def test_two_requests_at_once_are_refused_and_run_for_nobody_else(serve: Serve) -> None:
    """Given a child that does not wait for its reply, then its connection is closed, and others are served."""
    release = threading.Event()

    def slow(waves: Sequence[Wave]) -> None:
        release.wait(SOON_S)

    engine = StandIn(slow)
    served = serve(engine)
    bad = served.connect()
    wire.send_request(bad, request(1))
    wait_until(lambda: engine.runs, SOON_S, "the run")
    wire.send_request(bad, request(2))
    wait_until(lambda: not served.server._children, SOON_S, "its end")
    release.set()
    assert_served(served.connect(), 3)
    assert engine.runs == [1, 1]


def test_a_child_that_never_reads_delays_nobody(serve: Serve) -> None:
    """Given a child that reads none of its replies, when its buffer is full, then it is left at once."""
    message = "x" * wire.MAX_PAYLOAD
    served = serve(StandIn(lambda waves: RunFailed(message) if waves[0].segments == 2 else None), wait_s=0.0)
    deaf, good = served.connect(), served.connect()
    began = 0.0
    replies = 0
    while len(served.server._children) == 2:
        began = time.monotonic()
        replies += 1
        assert replies < 1000
        before = _unread(deaf)
        wire.send_request(deaf, request(replies, segments=2))
        wait_until(
            lambda: _unread(deaf) > before + len(message) or len(served.server._children) < 2,  # noqa: B023
            SOON_S,
            "its reply, or its end",
        )
    assert replies > 2
    assert_served(good, 5)
    # Since the reply that did not fit: a send that waits for room would take its timeout.
    assert time.monotonic() - began < 10


def _unread(connection: socket.socket) -> int:
    """Bytes that wait to be read."""
    count = array.array("i", [0])
    fcntl.ioctl(connection, termios.FIONREAD, count)
    return count[0]


def batch(served: Served, requests: Sequence[ScoreRequest]) -> list[socket.socket]:
    """All of them in one run: each one's child is there before the first request."""
    connections = [served.connect() for _ in requests]
    for connection, one in zip(connections, requests, strict=True):
        wire.send_request(connection, one)
    return connections


def fits(most: int, error: Exception) -> Callable[[Sequence[Wave]], Exception | None]:
    return lambda waves: error if len(waves) > most else None


SHORTAGES = [
    RunFailed("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 9"),
    MemoryError("std::bad_alloc"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
]


@pytest.mark.parametrize("error", SHORTAGES, ids=lambda error: type(error).__name__)
def test_a_run_that_lacks_memory_is_repeated_in_halves(serve: Serve, error: Exception) -> None:
    """Given memory for two recordings and five in a run, then all five get their answers."""
    engine = StandIn(fits(2, error))
    requests = [request(seed, segments=2) for seed in range(5)]
    connections = batch(serve(engine), requests)
    for connection, asked in zip(connections, requests, strict=True):
        reply = final(connection, asked)
        assert reply.kind is ReplyKind.SCORES
        assert_own(wire.unpack_scores(reply.payload, 2), asked.wave)
    assert engine.runs == [5, 3, 2, 1, 2]
    assert engine.released == 2


def test_one_that_finds_no_memory_alone_is_told_so_and_the_others_are_answered(serve: Serve) -> None:
    long = request(9, segments=3)
    engine = StandIn(lambda waves: MemoryError("bad_alloc") if any(one.segments == 3 for one in waves) else None)
    requests = [request(1, segments=3), request(2, segments=3), request(3, segments=3)]
    requests[1] = ScoreRequest(2, noise(2, 2), False)
    served = serve(engine)
    connections = batch(served, requests)
    kinds = [final(one, asked).kind for one, asked in zip(connections, requests, strict=True)]
    assert kinds == [ReplyKind.SHORT, ReplyKind.SCORES, ReplyKind.SHORT]
    # The connection goes on.
    wire.send_request(connections[0], long)
    for connection in connections[1:]:
        connection.close()
    reply = final(connections[0], long)
    assert (reply.kind, reply.message) == (ReplyKind.SHORT, "MemoryError: bad_alloc")


@pytest.mark.parametrize("error", [RunFailed("no reason"), SHORTAGES[0]])
def test_a_device_that_is_broken_ends_the_process_and_a_shortage_is_told_first(
    serve: Serve, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []

    class Ended(Exception):
        pass

    def end(status: int) -> None:
        ended.append(status)

    monkeypatch.setattr(os, "_exit", end)
    served = serve(StandIn(fits(0, error), sound=False))
    connection = served.connect()
    asked = request(1, exclusive=True)
    wire.send_request(connection, asked)
    wait_until(lambda: ended, SOON_S, "the end")
    assert ended == [BROKEN]
    first = final(connection, asked)
    # The stand-in for the exit returns: after a shortage nothing else is sent, and a failed run sends nothing before.
    assert first.kind is (ReplyKind.SHORT if error is SHORTAGES[0] else ReplyKind.FAILED)


def test_a_run_that_fails_is_repeated_one_by_one(serve: Serve) -> None:
    engine = StandIn(lambda waves: RunFailed("illegal value") if any(one.segments == 2 for one in waves) else None)
    requests = [request(1, segments=3), request(2, segments=3), request(3, segments=3)]
    requests[1] = ScoreRequest(2, noise(2, 2), False)
    connections = batch(serve(engine), requests)
    replies = [final(one, asked) for one, asked in zip(connections, requests, strict=True)]
    assert [reply.kind for reply in replies] == [ReplyKind.SCORES, ReplyKind.FAILED, ReplyKind.SCORES]
    assert replies[1].message == "failed: illegal value"
    assert engine.runs == [3, 1, 1, 1]


def test_a_listener_without_descriptors_goes_on(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given accepts that fail for a lack that passes, then the next children are served."""
    monkeypatch.setattr(server_module, "_ACCEPT_PAUSE_S", 0.001)
    served = serve(StandIn())
    ours, theirs = socket.socketpair()
    results: list[Any] = [OSError(number, os.strerror(number)) for number in (errno.EMFILE, errno.ECONNABORTED)]
    results += [(theirs, None), OSError(errno.EBADF, "closed")]

    class Listener:
        def accept(self) -> Any:
            result = results.pop(0)
            if isinstance(result, OSError):
                raise result
            return result

    with ours:
        with pytest.raises(OSError, match="closed"):
            served.server.accept(cast(socket.socket, Listener()))
        assert_served(ours, 1)


@pytest.mark.parametrize("lack", ["thread", "descriptor", "memory"])
def test_a_child_for_which_something_is_lacking_is_hung_up_on(
    serve: Serve, lack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve(StandIn())
    with monkeypatch.context() as patch:
        if lack == "thread":
            patch.setattr(threading.Thread, "start", _raises(RuntimeError("can't start new thread")))
        elif lack == "descriptor":
            patch.setattr(socket.socket, "dup", _raises(OSError(errno.EMFILE, "Too many open files")))
        else:
            patch.setattr(np, "empty", _raises(MemoryError()))
        ours = served.connect()
        if lack == "memory":
            ours.sendall(header())
        assert_hung_up_on(ours)
    assert_served(served.connect(), 1)


def _raises(error: Exception) -> Callable[..., None]:
    def raising(*_: Any, **__: Any) -> None:
        raise error

    return raising
