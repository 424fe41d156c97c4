"""The datagrams between a child and its decoder process, over a socket pair. Numbers have fixed places.

A recording is one conversation. The child begins it with :data:`DECODE`, an id that nobody can guess, and the size of
the object, whose bytes are in the shared memory. The decoder process opens streams, puts blocks of samples into one of
:data:`SLOTS` places in the other shared memory, and names the stream that counts. Every datagram has the id.

The child is the one that is attacked: :func:`unpack` returns what the datagram says or raises :class:`Violation`, for
any bytes. The decoder process trusts the child.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from tussis.shared.errors import AudioError, DecoderOutOfMemory, InternalFault, ObjectTooLarge, TussisError
from tussis.worker.audio.samples import Source
from tussis.worker.audio.sniff import Container
from tussis.worker.audio.table import FFMPEG_DECODERS, PYAV, SOUNDFILE, SOUNDFILE_SUBTYPES

SLOTS: Final = 2
SLOT_SAMPLES: Final = 2**18
"""Samples of all channels that a place has room for: 1 MiB."""
SLOT_BYTES: Final = 4 * SLOT_SAMPLES
MAX_DATAGRAM: Final = 1_024
MAX_STREAMS: Final = 16
MAX_MESSAGE: Final = 600
"""Bytes of an error message."""

HEAD: Final = struct.Struct("=BQ")
"""Of every datagram: its kind, and the id of the conversation."""
DECODE: Final = struct.Struct("=BQQ")
"""Child: kind 1, id, bytes of the object."""
TAKEN: Final = struct.Struct("=BQI")
"""Child: kind 2, id, the place that is free again."""
ENDED: Final = struct.Struct("=BQd")
"""Child: kind 3, id, the peak of the stream."""
_STREAM: Final = struct.Struct("=BQIII")
_BLOCK: Final = struct.Struct("=BQIIII")
_END: Final = struct.Struct("=BQIB")

#: The kinds of datagrams. The child sends the first four.
K_DECODE, K_TAKEN, K_ENDED, K_REFUSED, K_READY, K_STREAM, K_BLOCK, K_END, K_DONE, K_FAILED = range(1, 11)

_KINDS: Final[tuple[type[TussisError], ...]] = (
    AudioError, *AudioError.__subclasses__(), ObjectTooLarge, DecoderOutOfMemory, InternalFault,
)  # fmt: skip
ERRORS: Final = {kind.error_class: kind for kind in _KINDS}
"""The errors that a decoder process may report. Any other name is a violation."""

_SOURCES: Final = frozenset(
    {Source(str(container), codec, SOUNDFILE) for container in Container for codec in SOUNDFILE_SUBTYPES.values()}
    | {Source(str(container), codec, PYAV) for container in Container for codec in FFMPEG_DECODERS.values()}
)


class Violation(Exception):
    """The decoder process broke the protocol."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream begins."""

    number: int
    rate_hz: int
    channels: int
    source: Source


@dataclass(frozen=True, slots=True)
class Block:
    """Samples of the open stream are in a place of the shared memory."""

    number: int
    slot: int
    frames: int
    interleaved: bool
    """(frames, channels) in memory. Otherwise (channels, room), of which ``frames`` a channel are filled."""


@dataclass(frozen=True, slots=True)
class End:
    """The open stream has ended."""

    number: int
    incomplete: bool


@dataclass(frozen=True, slots=True)
class Done:
    """The recording is decoded: the stream that counts."""

    number: int
    incomplete: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """The recording is refused."""

    error: TussisError


Reply = Stream | Block | End | Done | Failed


def room(channels: int) -> int:
    """Samples a channel for which a place has room."""
    return SLOT_SAMPLES // channels


def stream(id_: int, number: int, rate_hz: int, channels: int, source: Source) -> bytes:
    return _STREAM.pack(K_STREAM, id_, number, rate_hz, channels) + "\0".join(source).encode()


def block(id_: int, number: int, slot: int, frames: int, interleaved: bool) -> bytes:
    return _BLOCK.pack(K_BLOCK, id_, number, slot, frames, interleaved)


def end(id_: int, number: int, incomplete: bool) -> bytes:
    return _END.pack(K_END, id_, number, incomplete)


def done(id_: int, number: int, incomplete: bool) -> bytes:
    return _END.pack(K_DONE, id_, number, incomplete)


def failed(id_: int, error: TussisError, kind: int = K_FAILED) -> bytes:
    """A refusal, of the recording by the decoder process or of a stream by the child (``K_REFUSED``)."""
    known = error.error_class if error.error_class in ERRORS else InternalFault.error_class
    return HEAD.pack(kind, id_) + known.encode() + b"\0" + str(error).encode(errors="replace")[:MAX_MESSAGE]


def unpack(datagram: bytes, id_: int) -> Reply:
    """Read a reply to the request ``id_``. Raises :class:`Violation` for everything that a decoder would not say."""
    try:
        return _unpack(datagram, id_)
    except (struct.error, UnicodeDecodeError, ValueError, KeyError) as error:
        raise Violation(f"a datagram of {len(datagram)} bytes is malformed ({type(error).__name__})") from None


def _unpack(datagram: bytes, id_: int) -> Reply:
    kind, found = HEAD.unpack_from(datagram)
    if found != id_:
        raise Violation("a reply has the id of another recording")
    match kind:
        case 6:  # K_STREAM
            _, _, number, rate_hz, channels = _STREAM.unpack_from(datagram)
            source = Source(*_texts(datagram[_STREAM.size :], 3))
            if source not in _SOURCES:
                raise Violation("a stream has an unknown container, codec or decoder")
            return Stream(number, rate_hz, channels, source)
        case 7:  # K_BLOCK
            _, _, number, slot, frames, interleaved = _BLOCK.unpack(datagram)
            return Block(number, slot, frames, bool(interleaved))
        case 8 | 9:  # K_END, K_DONE
            _, _, number, incomplete = _END.unpack(datagram)
            return (End if kind == K_END else Done)(number, bool(incomplete))
        case 10:  # K_FAILED
            return Failed(read_error(datagram))
        case _:
            raise Violation(f"a reply has the unknown kind {kind}")


def read_error(datagram: bytes) -> TussisError:
    """The error of a ``K_FAILED`` or ``K_REFUSED``: of a known class, with a short message of printable characters.

    Raises :class:`KeyError` for another class, :class:`ValueError` without one.
    """
    name, found, message = datagram[HEAD.size :].partition(b"\0")
    if not found:
        raise ValueError
    text = message[:MAX_MESSAGE].decode(errors="replace")
    return ERRORS[name.decode("ascii")]("".join(one if one.isprintable() else "?" for one in text))


def _texts(data: bytes, count: int) -> list[str]:
    texts = data.decode("ascii").split("\0")
    if len(texts) != count:
        raise ValueError
    return texts
