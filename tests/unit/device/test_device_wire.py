"""The protocol between children and the device process: what is sent arrives, and everything else is a typed error."""

from __future__ import annotations

import itertools
import math
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tussis.worker.detector.detector import Scores
from tussis.worker.device import wire
from tussis.worker.device.engine import noise
from tussis.worker.device.wire import MAX_PAYLOAD, Garbled, Gone, Reply, ReplyKind, ScoreRequest

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = socket.socketpair()
    for end in (one, other):
        end.settimeout(60)
    with one, other:
        yield one, other


def scores(segments: int, seed: int = 0) -> Scores:
    generator = np.random.default_rng(seed)
    bag, each = (generator.random((1, count), dtype=np.float32) for count in (1, segments))
    return Scores(bag[0], 3 - bag[0], each, -each)


def reply_bytes(reply: Reply) -> bytes:
    """As the device process sends it."""
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        wire.send_reply(one, reply)
        return other.recv(65_536)


def read_all(stream: bytes) -> tuple[list[Reply], Exception]:
    """The replies that a child reads from a stream, which then ends, and the error at its end."""
    one, other = socket.socketpair()
    with one, other:
        one.sendall(stream)
        one.shutdown(socket.SHUT_WR)
        read: list[Reply] = []
        while True:
            try:
                read.append(wire.receive_reply(other))
            except (Gone, Garbled) as error:
                return read, error


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("segments", [1, 32])
def test_a_recording_arrives_as_it_was_sent(pair: Pair, exclusive: bool, segments: int) -> None:
    sent = ScoreRequest(2**64 - 1, noise(segments, 3, "training"), exclusive)
    sender = threading.Thread(target=wire.send_request, args=(pair[0], sent), daemon=True)
    sender.start()
    request = wire.receive_request(pair[1])
    sender.join(60)
    assert (request.id, request.wave.profile, request.wave.segments) == (sent.id, "training", segments)
    assert request.exclusive is exclusive
    np.testing.assert_array_equal(request.wave.samples, sent.wave.samples)


def test_replies_arrive_as_they_were_sent(pair: Pair) -> None:
    pair[0].setblocking(False)
    sent = [
        Reply(1, ReplyKind.BEGUN),
        Reply(2**64 - 1, ReplyKind.FAILED, "nö".encode()),
        Reply(3, ReplyKind.SHORT, b"x" * MAX_PAYLOAD),
    ]
    for reply in sent:
        wire.send_reply(pair[0], reply)
    assert [wire.receive_reply(pair[1]) for _ in sent] == sent
    assert sent[1].message == "nö"
    wire.send_reply(pair[0], Reply(4, ReplyKind.FAILED, b"x" * (MAX_PAYLOAD + 1)))
    assert len(wire.receive_reply(pair[1]).payload) == MAX_PAYLOAD


@pytest.mark.parametrize("segments", [1, 3, 32])
def test_scores_arrive_as_they_were_packed(segments: int) -> None:
    packed = scores(segments)
    read = wire.unpack_scores(wire.pack_scores(packed), segments)
    for name in ("bag_probability", "bag_logit", "segment_probabilities", "segment_logits"):
        np.testing.assert_array_equal(getattr(read, name), getattr(packed, name))


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, math.nan), (0, 1.1), (0, -0.1), (1, math.inf), (2, math.nan), (4, 1 + 1e-5), (5, -math.inf), (7, math.nan)],
)
def test_scores_that_no_model_gives_are_refused(place: int, value: float) -> None:
    values = np.frombuffer(wire.pack_scores(scores(3)), dtype=np.float32).copy()
    values[place] = value
    with pytest.raises(Garbled):
        wire.unpack_scores(values.tobytes(), 3)


def test_a_probability_may_round_beyond_one() -> None:
    values = np.frombuffer(wire.pack_scores(scores(1)), dtype=np.float32).copy()
    values[0] = np.float32(1 + 2**-23)
    assert wire.unpack_scores(values.tobytes(), 1).bag_probability.tolist() == [1.0]


@pytest.mark.parametrize(("segments", "sent"), [(1, 2), (2, 1), (32, 31)])
def test_scores_of_another_number_of_segments_are_refused(segments: int, sent: int) -> None:
    with pytest.raises(Garbled, match="bytes for"):
        wire.unpack_scores(wire.pack_scores(scores(sent)), segments)


@pytest.mark.parametrize("payload", [b"", b"\0" * 8, b"\0" * 20, b"\0" * 17])
def test_what_are_no_scores_is_refused(payload: bytes) -> None:
    with pytest.raises(Garbled):
        wire.unpack_scores(payload, 1)


def header(magic: bytes = b"TSQ2", count: int = 32_000) -> bytes:
    return struct.pack("=4sQ?3xI24s", magic, 7, False, count, b"documented")


@pytest.mark.parametrize("bad", [header(b"HTTP"), header(count=32_001), header(count=31_999), header(count=288_000)])
def test_what_is_no_recording_is_refused_before_it_is_read(pair: Pair, bad: bytes) -> None:
    pair[0].sendall(bad)
    with pytest.raises(Garbled):
        wire.receive_request(pair[1])


@pytest.mark.parametrize("cut", [1, 20, len(header()), len(header()) + 1, len(header()) + 100_000])
@pytest.mark.parametrize("closed", [True, False])
def test_a_request_that_stops_is_left(pair: Pair, cut: int, closed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a request that stops anywhere, also between header and samples, then reading it ends."""
    monkeypatch.setattr(wire, "REST_S", 60.0 if closed else 0.05)
    pair[0].sendall((header() + bytes(4 * 32_000))[:cut])
    if closed:
        pair[0].close()
    with pytest.raises(Gone if closed else Garbled):
        wire.receive_request(pair[1])


@given(st.data())
def test_a_stream_that_ends_anywhere_gives_whole_replies_and_then_an_error(data: st.DataObject) -> None:
    sent = [
        Reply(5, ReplyKind.BEGUN),
        Reply(5, ReplyKind.SCORES, wire.pack_scores(scores(2))),
        Reply(6, ReplyKind.FAILED, b"why"),
    ]
    parts = [reply_bytes(reply) for reply in sent]
    cut = data.draw(st.integers(0, sum(map(len, parts))))
    read, error = read_all(b"".join(parts)[:cut])
    whole = sum(1 for number in range(len(parts)) if sum(map(len, parts[: number + 1])) <= cut)
    assert read == sent[:whole]
    assert isinstance(error, Gone)


@given(st.data())
def test_a_stream_with_bytes_changed_lost_or_added_never_gives_another_reply(data: st.DataObject) -> None:
    """Given a stream that is changed anywhere, then what is read are replies that were sent, and then an error."""
    sent = [
        Reply(5, ReplyKind.BEGUN),
        Reply(5, ReplyKind.SCORES, wire.pack_scores(scores(2))),
        Reply(6, ReplyKind.SHORT, b"why"),
    ]
    stream = b"".join(reply_bytes(reply) for reply in sent)
    first = data.draw(st.integers(0, len(stream)))
    last = data.draw(st.integers(first, min(len(stream), first + 64)))
    changed = stream[:first] + data.draw(st.binary(max_size=64)) + stream[last:]
    read, _ = read_all(changed)
    assert all(reply in sent for reply in read)


@given(st.binary(max_size=200))
def test_noise_is_no_reply_and_no_request(stream: bytes) -> None:
    assert read_all(stream)[0] == []
    one, other = socket.socketpair()
    with one, other:
        one.sendall(stream)
        one.close()
        with pytest.raises((Gone, Garbled)):
            wire.receive_request(other)


@given(st.lists(st.integers(1, 400), max_size=6))
def test_a_reply_in_pieces_is_one_reply(cuts: list[int]) -> None:
    sent = Reply(5, ReplyKind.SCORES, wire.pack_scores(scores(32)))
    stream = reply_bytes(sent)
    one, other = socket.socketpair()
    with one, other:
        borders = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
        pieces = [stream[first:last] for first, last in itertools.pairwise(borders)]
        # Each piece is sent when the one before has been read and nothing more is there.
        one.sendall(pieces.pop(0))

        def look() -> None:
            if pieces:
                one.sendall(pieces.pop(0))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wire, "LOOK_S", 0.0005)
            assert wire.receive_reply(other, look=look) == sent


@pytest.mark.parametrize("cut", [0, 1, 10, 24, 25, 30])
def test_a_reply_that_stops_is_left(pair: Pair, cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "REST_S", 0.05)
    pair[0].sendall(reply_bytes(Reply(5, ReplyKind.FAILED, b"something"))[:cut])
    with pytest.raises(Garbled, match="timeout after"):
        wire.receive_reply(pair[1], time.monotonic() + 0.05)


def test_a_length_beyond_any_reply_is_refused_unread(pair: Pair) -> None:
    fields = struct.pack("=4sQB3xI", b"TSR2", 5, ReplyKind.SCORES, 2**32 - 1)
    pair[0].sendall(fields + struct.pack("=I", zlib.crc32(fields)))
    with pytest.raises(Garbled, match="invalid header"):
        wire.receive_reply(pair[1])


def test_a_reply_that_nobody_reads_is_not_waited_for(pair: Pair) -> None:
    """Given a child that never reads, when its socket is full, then a reply fails at once."""
    pair[0].setblocking(False)

    def send_often() -> None:
        for _ in range(10_000):
            wire.send_reply(pair[0], Reply(5, ReplyKind.FAILED, b"x" * MAX_PAYLOAD))

    with pytest.raises(Gone, match="does not read"):
        send_often()


def test_a_wait_can_be_interrupted(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a device process that neither takes nor sends, then a child looks round all the while."""
    monkeypatch.setattr(wire, "LOOK_S", 0.001)

    class Enough(Exception):
        pass

    def look() -> None:
        raise Enough

    with pytest.raises(Enough):
        wire.receive_reply(pair[1], look=look)
    with pytest.raises(Enough):
        wire.send_request(pair[1], ScoreRequest(1, noise(32, 0), False), look)
