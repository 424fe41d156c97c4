"""What a carrier and the device process say to each other over a Unix stream socket, one recording at a time.

A carrier sends a header and the samples; the device process answers ``begun`` when the run with it starts, and then
``scores`` or ``failed``. A connection that breaks is an answer too: see :mod:`tussis.worker.device.scorer`. Both ends
are of one version and one machine: numbers are in the machine's own order.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tussis.shared.dsp.constants import HOP_SAMPLES, MAX_SEGMENTS, SEGMENT_SAMPLES
from tussis.worker.detector.detector import Scores

#: The socket's name in the run directory.
SOCKET: Final = "device.sock"
#: The longest recording, as the pipeline cuts it: 17.5 s.
MAX_SAMPLES: Final = (MAX_SEGMENTS - 1) * HOP_SAMPLES + SEGMENT_SAMPLES

_REQUEST: Final = struct.Struct("=4s?3xI24s")
_REPLY: Final = struct.Struct("=B3xI")
_MAGIC: Final = b"TSD1"
#: A kernel takes no longer socket address (sun_path, with its closing zero).
_LONGEST_PATH: Final = 107


class Gone(ConnectionError):
    """The other end has closed, or never was there."""


class Garbled(Exception):
    """The other end does not speak this protocol."""


class Kind(IntEnum):
    """Of a reply."""

    BEGUN = 1
    SCORES = 2
    FAILED = 3


@dataclass(frozen=True, slots=True, eq=False)
class Wave:
    """One recording's segments as a carrier hands them over."""

    samples: NDArray[np.float32]
    """float32 ((S - 1) * 8000 + 32000,) at 16 kHz, 1 <= S <= 32; neighbours overlap."""
    profile: str

    @property
    def segments(self) -> int:
        """S."""
        return (int(self.samples.shape[0]) - SEGMENT_SAMPLES) // HOP_SAMPLES + 1


def send_wave(connection: socket.socket, wave: Wave, *, alone: bool) -> None:
    """Raises :class:`Gone`."""
    header = _REQUEST.pack(_MAGIC, alone, wave.samples.shape[0], wave.profile.encode())
    _send(connection, header)
    _send(connection, np.ascontiguousarray(wave.samples).data.cast("B"))


def receive_wave(connection: socket.socket) -> tuple[Wave, bool]:
    """The next recording, and whether it has to run alone. Raises :class:`Gone`, :class:`Garbled`."""
    magic, alone, count, name = _REQUEST.unpack(_receive(connection, _REQUEST.size))
    if magic != _MAGIC:
        raise Garbled(f"a request begins with {magic!r}")
    if not SEGMENT_SAMPLES <= count <= MAX_SAMPLES or (count - SEGMENT_SAMPLES) % HOP_SAMPLES:
        raise Garbled(f"{count} samples are no whole segments")
    samples = np.empty(count, dtype=np.float32)
    _receive_into(connection, samples.data.cast("B"))
    return Wave(samples, name.rstrip(b"\0").decode("ascii", "replace")), alone


def send_reply(connection: socket.socket, kind: Kind, payload: bytes = b"") -> None:
    """Raises :class:`Gone`."""
    _send(connection, _REPLY.pack(kind, len(payload)) + payload)


def receive_reply(connection: socket.socket) -> tuple[Kind, bytes]:
    """Raises :class:`Gone`, :class:`Garbled`, and ``TimeoutError`` when nothing of it came within the timeout."""
    kind, length = _REPLY.unpack(_receive(connection, _REPLY.size))
    try:
        return Kind(kind), _receive(connection, length)
    except ValueError:
        raise Garbled(f"a reply of kind {kind}") from None


def pack_scores(scores: Scores) -> bytes:
    """Of one recording, B = 1."""
    each = (scores.bag_probability, scores.bag_logit, scores.segment_probabilities[0], scores.segment_logits[0])
    return np.concatenate(each).astype(np.float32).tobytes()


def unpack_scores(payload: bytes) -> Scores:
    """Raises :class:`Garbled`."""
    segments = (len(payload) // 4 - 2) // 2
    if len(payload) != 4 * (2 + 2 * segments) or segments < 1:
        raise Garbled(f"scores of {len(payload)} bytes")
    values = np.frombuffer(payload, dtype=np.float32)
    probabilities, logits = values[2 : 2 + segments], values[2 + segments :]
    return Scores(values[0:1], values[1:2], probabilities[None], logits[None])


def listen(folder: Path) -> socket.socket:
    """A socket that carriers find in ``folder``, put there in one step, in the place of an earlier one."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    draft = f".{SOCKET}.{os.getpid()}"
    with _Address(folder, draft) as address:
        server.bind(address.path)
    server.listen(256)
    (folder / draft).replace(folder / SOCKET)
    return server


def connect(folder: Path) -> socket.socket:
    """Raises :class:`Gone` when nobody listens."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _Address(folder, SOCKET) as address:
            connection.connect(address.path)
    except OSError as error:
        connection.close()
        raise Gone(f"no device process listens in {folder}: {error.strerror}") from error
    return connection


class _Address:
    """A path of a socket that fits into a socket's address, however deep the folder lies."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = str(folder / name)
        self._folder: int | None = None
        if len(os.fsencode(self.path)) > _LONGEST_PATH:
            self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self.path = f"/proc/self/fd/{self._folder}/{name}"

    def __enter__(self) -> _Address:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            os.close(self._folder)


def _send(connection: socket.socket, data: bytes | memoryview) -> None:
    try:
        connection.sendall(data)
    except TimeoutError as error:
        raise Gone("the other end takes nothing") from error
    except OSError as error:
        raise Gone(str(error)) from error


def _receive(connection: socket.socket, count: int) -> bytes:
    data = bytearray(count)
    _receive_into(connection, memoryview(data))
    return bytes(data)


def _receive_into(connection: socket.socket, view: memoryview) -> None:
    done = 0
    while done < len(view):
        try:
            got = connection.recv_into(view[done:])
        except TimeoutError:
            if done == 0:
                raise
            continue  # in the middle of a message: the rest is on its way
        except OSError as error:
            raise Gone(str(error)) from error
        if got == 0:
            raise Gone("the other end has closed")
        done += got
