"""A child against a device process that misbehaves: it gets its own answer or a typed error, never another answer.

The device here is a thread that sends what a test prescribes; tests/faults/test_device.py has the real one.
"""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.waiting import wait_until
from tests.unit.device.test_device_wire import reply_bytes
from tussis.shared.errors import DeviceReplyLost, InferenceFailed, OutOfMemory
from tussis.worker.detector.arithmetic import Arithmetic
from tussis.worker.detector.detector import Scores
from tussis.worker.device import scorer, sockets, wire
from tussis.worker.device.engine import noise
from tussis.worker.device.scorer import DeviceScorer
from tussis.worker.device.wire import Garbled, Gone, Reply, ReplyKind, ScoreRequest, Wave
from tussis.worker.outcome import Stopping
from tussis.worker.status.rundir import RunDir

#: What the device sends for a request: bytes, and None for closing the connection.
Script = Callable[[ScoreRequest, list[ScoreRequest]], Sequence[bytes | None]]


def answer(wave: Wave) -> Scores:
    """Of the scripted device: other samples, another answer."""
    value = np.float32(abs(wave.samples[0]) % 1)
    each = np.full((1, wave.segments), value, dtype=np.float32)
    return Scores(each[0, :1], -each[0, :1], each, each + 1)


def begun(request: ScoreRequest) -> bytes:
    return reply_bytes(Reply(request.id, ReplyKind.BEGUN))


def scored(request: ScoreRequest, wave: Wave | None = None) -> bytes:
    return reply_bytes(Reply(request.id, ReplyKind.SCORES, wire.pack_scores(answer(wave or request.wave))))


def good(request: ScoreRequest, earlier: list[ScoreRequest]) -> Sequence[bytes]:
    return [begun(request), scored(request)]


class Device:
    """Listens in a folder and follows one script a request, then the last one for all further requests."""

    def __init__(self, folder: Path, scripts: Sequence[Script]) -> None:
        self._scripts = list(scripts)
        self._earlier: list[ScoreRequest] = []
        self._listener = sockets.listen(folder)
        self._open: list[socket.socket] = []
        self.connections = 0
        self.ended = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            while True:
                request = wire.receive_request(connection)
                script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
                parts = script(request, list(self._earlier))
                self._earlier.append(request)
                for part in parts:
                    if part is None:
                        return
                    connection.settimeout(60)
                    connection.sendall(part)
        except (Gone, Garbled, OSError):
            return
        finally:
            connection.close()
            self.ended += 1

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()


@contextmanager
def device(folder: Path, *scripts: Script) -> Iterator[Device]:
    made = Device(folder, scripts)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[RunDir]:
    made = RunDir(tmp_path / "tussis-1")
    made.create("gpu@test")
    yield made
    made.remove()


@pytest.fixture
def child(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> Iterator[DeviceScorer]:
    """One with short pauses."""
    hasten(monkeypatch)
    made = scorer_of(run_dir)
    yield made
    made.close()


def hasten(patch: pytest.MonkeyPatch, answer_s: float = 60.0) -> None:
    patch.setattr(scorer, "LOOK_S", 0.001)
    patch.setattr(scorer, "_ANSWER_S", answer_s)
    patch.setattr(wire, "LOOK_S", 0.001)


def scorer_of(run_dir: RunDir) -> DeviceScorer:
    return DeviceScorer(None, run_dir, grace_s=0.0)  # type: ignore[arg-type]


def assert_own(scores: Scores, wave: Wave) -> None:
    expected = answer(wave)
    for name in ("bag_probability", "bag_logit", "segment_probabilities", "segment_logits"):
        np.testing.assert_array_equal(getattr(scores, name), getattr(expected, name))


def test_one_connection_serves_recording_after_recording(child: DeviceScorer, run_dir: RunDir) -> None:
    with device(run_dir.path, good) as made:
        for seed in range(4):
            wave = noise(1 + seed, seed)
            assert_own(child.score(wave, exclusive=False), wave)
        assert made.connections == 1


@pytest.mark.parametrize(("kind", "error"), [(ReplyKind.FAILED, InferenceFailed), (ReplyKind.SHORT, OutOfMemory)])
def test_a_reply_that_is_an_error_is_raised_and_the_connection_stays(
    child: DeviceScorer, run_dir: RunDir, kind: ReplyKind, error: type[Exception]
) -> None:
    def fails(request: ScoreRequest, _: list[ScoreRequest]) -> Sequence[bytes]:
        return [begun(request), reply_bytes(Reply(request.id, kind, b"why \xff"))]

    wave = noise(2, 1)
    with device(run_dir.path, fails, good) as made:
        with pytest.raises(error, match="why"):
            child.score(wave, exclusive=False)
        assert_own(child.score(wave, exclusive=False), wave)
        assert made.connections == 1


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, MemoryError, RuntimeError, Stopping])
@pytest.mark.parametrize(("place", "calls"), [("send_request", 1), ("receive_reply", 1), ("receive_reply", 2)])
def test_whatever_interrupts_a_recording_the_next_one_gets_its_own_answer(
    child: DeviceScorer,
    run_dir: RunDir,
    monkeypatch: pytest.MonkeyPatch,
    raised: type[BaseException],
    place: str,
    calls: int,
) -> None:
    """Given an exception once the request is sent, when the next one is asked, then the old connection is closed."""
    genuine: Any = getattr(wire, place)
    left = [calls]

    def interrupted(*arguments: Any) -> Any:
        result = genuine(*arguments)
        left[0] -= 1
        if left[0] == 0:
            raise raised
        return result

    first, second = noise(3, 1), noise(3, 2)
    with device(run_dir.path, good) as made:
        monkeypatch.setattr(wire, place, interrupted)
        with pytest.raises(raised):
            child.score(first, exclusive=False)
        assert_own(child.score(second, exclusive=False), second)
        wait_until(lambda: made.ended == 1, 60, "the first connection's end")
        assert made.connections == 2


def test_a_stop_interrupts_a_wait_for_a_reply(child: DeviceScorer, run_dir: RunDir) -> None:
    """Given a device process that never replies, when the worker stops, then the recording is handed back."""
    with device(run_dir.path, lambda request, _: []) as made:

        def stop() -> None:
            wait_until(lambda: made.connections, 60, "the request")
            run_dir.stop()

        threading.Thread(target=stop).start()
        with pytest.raises(Stopping):
            child.score(noise(1, 1), exclusive=False)


def test_a_device_process_that_hangs_up_for_ever_is_given_up(child: DeviceScorer, run_dir: RunDir) -> None:
    """Given a device process that closes every connection at once, then the tries are bounded, with a pause between."""
    with (
        device(run_dir.path, lambda request, _: [None]) as made,
        pytest.raises(DeviceReplyLost, match=r"in 5 tries: .*closed"),
    ):
        child.score(noise(1, 1), exclusive=False)
    assert made.connections == 5


def test_a_run_whose_connection_breaks_is_repeated_while_its_process_lives(
    child: DeviceScorer, run_dir: RunDir
) -> None:
    wave = noise(2, 1)
    with device(run_dir.path, lambda request, _: [begun(request), None], good) as made:
        assert_own(child.score(wave, exclusive=True), wave)
    assert made.connections >= 2


def test_a_silent_device_process_is_given_up(
    child: DeviceScorer, run_dir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer, "_ANSWER_S", 0.05)
    with device(run_dir.path, lambda request, _: []), pytest.raises(DeviceReplyLost, match="timeout after"):
        child.score(noise(1, 1), exclusive=False)


def test_a_flood_of_replies_that_end_nothing_is_given_up(
    child: DeviceScorer, run_dir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer, "_ANSWER_S", 0.05)

    def flood(request: ScoreRequest, _: list[ScoreRequest]) -> Sequence[bytes]:
        return [begun(request)] * 100_000

    began = time.monotonic()
    with device(run_dir.path, flood), pytest.raises(DeviceReplyLost):
        child.score(noise(1, 1), exclusive=False)
    assert time.monotonic() - began < 60


def _other(request: ScoreRequest) -> Wave:
    return noise(request.wave.segments, 77)


def _wrong_segments(request: ScoreRequest) -> bytes:
    return scored(request, noise(request.wave.segments % 32 + 1, 5))


def _not_finite(request: ScoreRequest) -> bytes:
    payload = np.frombuffer(wire.pack_scores(answer(request.wave)), dtype=np.float32).copy()
    payload[1] = np.nan
    return reply_bytes(Reply(request.id, ReplyKind.SCORES, payload.tobytes()))


def _stranger(request: ScoreRequest) -> ScoreRequest:
    return ScoreRequest(request.id ^ 1, _other(request), request.exclusive)


#: Pieces that a script is made of. Scores of other samples are under another request's id, as they would be.
_PIECES: dict[str, Callable[[ScoreRequest, list[ScoreRequest]], bytes | None]] = {
    "begun": lambda request, _: begun(request),
    "scores": lambda request, _: scored(request),
    "another's begun": lambda request, _: begun(_stranger(request)),
    "another's scores": lambda request, _: scored(_stranger(request)),
    "stale scores": lambda request, earlier: scored(earlier[-1]) if earlier else b"",
    "stale begun": lambda request, earlier: begun(earlier[-1]) if earlier else b"",
    "wrong segments": lambda request, _: _wrong_segments(request),
    "not finite": lambda request, _: _not_finite(request),
    "noise": lambda request, _: b"\x00\x17TSR2" * 9,
    "close": lambda request, _: None,
}


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """Any order and number of pieces, each perhaps cut short."""
    names = draw(st.lists(st.sampled_from(sorted(_PIECES)), max_size=5) | st.sampled_from([["begun", "scores"]] * 3))
    cuts = draw(st.lists(st.none() | st.integers(0, 60), min_size=len(names), max_size=len(names)))
    whole = draw(st.booleans())

    def script(request: ScoreRequest, earlier: list[ScoreRequest]) -> Sequence[bytes | None]:
        pieces = [_PIECES[name](request, earlier) for name in names]
        if whole:
            return pieces
        return [piece if piece is None else piece[:cut] for piece, cut in zip(pieces, cuts, strict=True)]

    return script


@settings(max_examples=60)
@given(st.lists(scripts(), min_size=1, max_size=12), st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_whatever_the_device_process_sends_a_recording_gets_its_own_answer_or_a_typed_error(
    chosen: list[Script], lengths: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        hasten(patch, answer_s=0.02)
        patch.setattr(wire, "REST_S", 0.02)
        run_dir = RunDir(Path(folder) / "tussis-1")
        run_dir.create()
        child = scorer_of(run_dir)
        with device(run_dir.path, *chosen, good):
            for seed, segments in enumerate(lengths):
                wave = noise(segments, seed)
                try:
                    scores = child.score(wave, exclusive=False)
                except DeviceReplyLost:
                    continue
                assert_own(scores, wave)
        child.close()
        run_dir.remove()


def test_the_arithmetic_is_that_of_the_device_process(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run")
    run_dir.create("gpu@test")
    here = DeviceScorer(None, run_dir, 0.0)  # type: ignore[arg-type]
    assert here.arithmetic == Arithmetic("", "original", "")

    run_dir.report_device("ready", provider="cuda", device="NVIDIA H200")

    assert here.arithmetic == Arithmetic("cuda", "original", "NVIDIA H200")
