"""The protocol between children and the device process, over a Unix stream socket, one recording at a time.

A child sends a request: a header and the samples. The device process replies ``begun`` when a run with the recording
starts, and then ``scores``, ``failed`` or ``short``. Every reply has the id of its request. Both ends have the same
version and run on one machine, so numbers are in the machine's byte order.

After any error of this module the position in the byte stream is unknown, and the connection must be closed.
"""

from __future__ import annotations

import math
import socket
import struct
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tussis.shared.dsp.constants import HOP_SAMPLES, MAX_SEGMENTS, SEGMENT_SAMPLES
from tussis.shared.errors import InferenceFailed
from tussis.worker.detector.contract import BAG_LOGIT, BAG_PROBABILITY, SEGMENT_LOGITS, SEGMENT_PROBABILITIES
from tussis.worker.detector.detector import Scores, read_scores

#: Most samples of a recording after the pipeline has cut it: 17.5 s.
MAX_SAMPLES: Final = (MAX_SEGMENTS - 1) * HOP_SAMPLES + SEGMENT_SAMPLES
#: Bytes of the longest payload of a reply. Scores take 264 at most. Error messages are cut to this length.
MAX_PAYLOAD: Final = 4096
#: Seconds from the first byte of a message to its last. A message has 1.1 MB at most and stays on one machine.
REST_S: Final = 30.0
#: Seconds between two calls of ``look`` while no bytes move.
LOOK_S: Final = 0.25

#: Magic, id, whether the request is exclusive, number of samples, profile.
_REQUEST: Final = struct.Struct("=4sQ?3xI24s")
#: Magic, id, kind, bytes of the payload, CRC-32 of the fields before it and of the payload.
_REPLY: Final = struct.Struct("=4sQB3xII")
_REPLY_FIELDS: Final = struct.Struct("=4sQB3xI")
_REQUEST_MAGIC: Final = b"TSQ2"
_REPLY_MAGIC: Final = b"TSR2"
#: Seconds of one wait without ``look``. A socket without a timeout would also make its non-blocking duplicates
#: blocking, because they share the flag.
_LONGEST_WAIT_S: Final = 3600.0


class Gone(ConnectionError):
    """The other end has closed the connection, does not read, or does not listen."""


class Garbled(Exception):
    """The received bytes violate the protocol."""


class ReplyKind(IntEnum):
    """The kind of a reply."""

    BEGUN = 1
    """A run with the recording starts. May come several times: a failed run is repeated with fewer recordings."""
    SCORES = 2
    FAILED = 3
    """The model returns no usable scores for this recording; the payload is the error message."""
    SHORT = 4
    """The device process had too little memory for this recording; the payload is the error message."""


@dataclass(frozen=True, slots=True, eq=False)
class Wave:
    """One recording's segments as a child sends them."""

    samples: NDArray[np.float32]
    """float32 ((S - 1) * 8000 + 32000,) at 16 kHz, 1 <= S <= 32; neighbours overlap."""
    profile: str

    @property
    def segments(self) -> int:
        """S, the number of segments."""
        return (int(self.samples.shape[0]) - SEGMENT_SAMPLES) // HOP_SAMPLES + 1


@dataclass(frozen=True, slots=True, eq=False)
class ScoreRequest:
    """A child's request for the scores of one recording."""

    id: int
    """Random, 64 bits, so that no two requests of a worker have the same id."""
    wave: Wave
    exclusive: bool
    """Whether the recording must not share the run."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply of the device process."""

    id: int
    """The id of the request."""
    kind: ReplyKind
    payload: bytes = b""

    @property
    def message(self) -> str:
        """The payload of an error as text."""
        return self.payload.decode(errors="replace")


def _no_look() -> None:
    """The default ``look``, which does nothing."""


def send_request(connection: socket.socket, request: ScoreRequest, look: Callable[[], None] = _no_look) -> None:
    """Send the whole request within :data:`REST_S`.

    ``look`` is called while no bytes move, and may raise. Raises :class:`Gone`, :class:`Garbled` when the time is over.
    """
    wave = request.wave
    header = _REQUEST.pack(_REQUEST_MAGIC, request.id, request.exclusive, wave.samples.shape[0], wave.profile.encode())
    ends = time.monotonic() + REST_S
    _move(connection.send, connection, memoryview(header), ends, look)
    _move(connection.send, connection, np.ascontiguousarray(wave.samples).data.cast("B"), ends, look)


def receive_request(connection: socket.socket) -> ScoreRequest:
    """Receive the next request. Waits without limit for its first byte, and :data:`REST_S` for the rest.

    Raises :class:`Gone`, :class:`Garbled`.
    """
    header, ends = _receive_header(connection, _REQUEST.size, math.inf, _no_look)
    magic, request_id, exclusive, count, name = _REQUEST.unpack(header)
    if magic != _REQUEST_MAGIC:
        raise Garbled(f"invalid header of a request: it begins with {magic!r}")
    if not SEGMENT_SAMPLES <= count <= MAX_SAMPLES or (count - SEGMENT_SAMPLES) % HOP_SAMPLES:
        raise Garbled(f"{count} samples are not a whole number of segments")
    samples = np.empty(count, dtype=np.float32)
    _move(connection.recv_into, connection, samples.data.cast("B"), ends, _no_look)
    return ScoreRequest(request_id, Wave(samples, name.rstrip(b"\0").decode("ascii", "replace")), exclusive)


def send_reply(connection: socket.socket, reply: Reply) -> None:
    """Send a reply without waiting; ``connection`` must be non-blocking.

    Raises :class:`Gone`, also when the socket's buffer has too little space. The buffer holds hundreds of replies, and
    a child has one request at a time.
    """
    payload = reply.payload[:MAX_PAYLOAD]
    fields = _REPLY_FIELDS.pack(_REPLY_MAGIC, reply.id, reply.kind, len(payload))
    data = fields + zlib.crc32(payload, zlib.crc32(fields)).to_bytes(4, sys.byteorder) + payload
    try:
        sent = connection.send(data)
    except BlockingIOError:
        raise Gone("the other end does not read its replies") from None
    except OSError as error:
        raise Gone(str(error)) from error
    if sent < len(data):
        raise Gone("the other end does not read its replies")


def receive_reply(connection: socket.socket, ends: float = math.inf, look: Callable[[], None] = _no_look) -> Reply:
    """Receive the next reply.

    Args:
        connection: a child's end of the connection.
        ends: the deadline of the reply's first byte, in seconds of the machine's monotonic clock. The rest has
            :data:`REST_S`.
        look: called every :data:`LOOK_S` while no bytes come; may raise.

    Raises:
        Gone: the connection was closed.
        Garbled: nothing came in time, a reply is incomplete, or the bytes are not a reply.
    """
    header, ends = _receive_header(connection, _REPLY.size, ends, look)
    magic, request_id, kind, length, checksum = _REPLY.unpack(header)
    if magic != _REPLY_MAGIC or length > MAX_PAYLOAD or kind not in set(ReplyKind):
        raise Garbled(f"invalid header of a reply: {header.hex()}")
    payload = bytearray(length)
    _move(connection.recv_into, connection, memoryview(payload), ends, look)
    if zlib.crc32(payload, zlib.crc32(header[: _REPLY_FIELDS.size])) != checksum:
        raise Garbled("a reply's checksum is wrong")
    return Reply(request_id, ReplyKind(kind), bytes(payload))


def pack_scores(scores: Scores) -> bytes:
    """The payload for one recording, B = 1: bag probability and logit, S probabilities, S logits, float32."""
    each = (scores.bag_probability, scores.bag_logit, scores.segment_probabilities[0], scores.segment_logits[0])
    return np.concatenate(each).astype(np.float32).tobytes()


def unpack_scores(payload: bytes, segments: int) -> Scores:
    """The scores of a recording of ``segments`` segments, (1,) and (1, S), checked like the detector's.

    Raises :class:`Garbled` when the number of segments differs, or when values are not finite or not probabilities.
    """
    if len(payload) != 4 * (2 + 2 * segments):
        raise Garbled(f"invalid scores: {len(payload)} bytes for {segments} segments")
    values = np.frombuffer(payload, dtype=np.float32)
    outputs = {
        BAG_PROBABILITY: values[0:1],
        BAG_LOGIT: values[1:2],
        SEGMENT_PROBABILITIES: values[None, 2 : 2 + segments],
        SEGMENT_LOGITS: values[None, 2 + segments :],
    }
    try:
        return read_scores(outputs, np.ones((1, segments), dtype=np.bool_), segments, "in the device process")
    except InferenceFailed as error:
        # The device process has checked the scores before it sent them, so these bytes are not what it sent.
        raise Garbled(str(error)) from None


def _receive_header(connection: socket.socket, size: int, ends: float, look: Callable[[], None]) -> tuple[bytes, float]:
    """Receive a header whose first byte comes before ``ends``. Also return the deadline of the whole message."""
    header = bytearray(size)
    view = memoryview(header)
    _move(connection.recv_into, connection, view[:1], ends, look)
    ends = time.monotonic() + REST_S
    _move(connection.recv_into, connection, view[1:], ends, look)
    return bytes(header), ends


def _move(
    step: Callable[[memoryview], int],
    connection: socket.socket,
    view: memoryview,
    ends: float,
    look: Callable[[], None],
) -> None:
    """Send or receive all of ``view`` by repeated steps before ``ends``. Raises :class:`Gone`, :class:`Garbled`."""
    done = 0
    while done < len(view):
        left = ends - time.monotonic()
        if left <= 0:
            raise Garbled(f"timeout after {done} of {len(view)} bytes")
        connection.settimeout(min(left, LOOK_S if look is not _no_look else _LONGEST_WAIT_S))
        try:
            moved = step(view[done:])
        except TimeoutError:
            look()
            continue
        except OSError as error:
            raise Gone(str(error)) from error
        if moved == 0:
            raise Gone("the other end has closed the connection")
        done += moved
