"""What carriers and the device process say to each other."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tussis.worker.detector.detector import Scores
from tussis.worker.device import wire
from tussis.worker.device.engine import noise
from tussis.worker.device.wire import Garbled, Gone, Kind

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = socket.socketpair()
    for end in (one, other):
        end.settimeout(60)
    with one, other:
        yield one, other


@pytest.mark.parametrize("alone", [True, False])
def test_a_recording_arrives_as_it_was_sent(pair: Pair, alone: bool) -> None:
    sent = noise(1, 3, "training")
    wire.send_wave(pair[0], sent, alone=alone)
    wave, told = wire.receive_wave(pair[1])
    assert (wave.profile, wave.segments, told) == ("training", 1, alone)
    np.testing.assert_array_equal(wave.samples, sent.samples)


def test_answers_arrive_as_they_were_sent(pair: Pair) -> None:
    generator = np.random.default_rng(0)
    one, three = (generator.random((1, count), dtype=np.float32) for count in (1, 3))
    scores = Scores(one[0], -one[0], three, -three)
    wire.send_reply(pair[0], Kind.BEGUN)
    wire.send_reply(pair[0], Kind.SCORES, wire.pack_scores(scores))
    wire.send_reply(pair[0], Kind.FAILED, "nö".encode())
    assert wire.receive_reply(pair[1]) == (Kind.BEGUN, b"")
    kind, payload = wire.receive_reply(pair[1])
    read = wire.unpack_scores(payload)
    assert kind is Kind.SCORES
    for name in ("bag_probability", "bag_logit", "segment_probabilities", "segment_logits"):
        np.testing.assert_array_equal(getattr(read, name), getattr(scores, name))
    assert wire.receive_reply(pair[1]) == (Kind.FAILED, "nö".encode())


def test_an_end_in_the_middle_is_told_from_silence(pair: Pair) -> None:
    pair[1].settimeout(0.01)
    with pytest.raises(TimeoutError):
        wire.receive_wave(pair[1])
    pair[0].sendall(b"TSD1")
    pair[0].close()
    with pytest.raises(Gone):
        wire.receive_wave(pair[1])
    with pytest.raises(Gone):
        wire.send_reply(pair[1], Kind.BEGUN)


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("=4s?3xI24s", b"HTTP", False, 32_000, b"documented"),
        struct.pack("=4s?3xI24s", b"TSD1", False, 32_001, b"documented"),
        struct.pack("=4s?3xI24s", b"TSD1", False, 31_999, b"documented"),
        struct.pack("=4s?3xI24s", b"TSD1", False, 288_000, b"documented"),
    ],
)
def test_what_is_no_recording_is_refused_before_it_is_read(pair: Pair, header: bytes) -> None:
    pair[0].sendall(header)
    with pytest.raises(Garbled):
        wire.receive_wave(pair[1])


@pytest.mark.parametrize("payload", [b"", b"\0" * 8, b"\0" * 20, b"\0" * 17])
def test_what_are_no_scores_is_refused(payload: bytes) -> None:
    with pytest.raises(Garbled):
        wire.unpack_scores(payload)


@pytest.mark.parametrize("name", ["short", "long" * 50])
def test_carriers_find_the_socket_however_deep_the_folder_lies(tmp_path: Path, name: str) -> None:
    """Given a run directory whose path is longer than a socket's address, when a carrier connects, then it gets in."""
    folder = tmp_path / name
    folder.mkdir()
    with pytest.raises(Gone):
        wire.connect(folder)
    with wire.listen(folder), wire.listen(folder) as second, wire.connect(folder) as carrier:
        inside, _ = second.accept()
        with inside:
            wire.send_reply(inside, Kind.BEGUN)
            carrier.settimeout(60)
            assert wire.receive_reply(carrier) == (Kind.BEGUN, b"")
    with pytest.raises(Gone):
        wire.connect(folder)
