"""Reads a header before any library reads the file: codec, rate, channels, and stated length.

Only the headers of FLAC and of the containers of uncompressed audio are read here. The header selects the decoder. A
damaged header gets an exact error message, where libraries report "internal error". A recording over a limit is refused
before memory is allocated. The libraries read the header again, and their values are checked again.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tussis.shared.errors import CorruptAudio, NoSamples
from tussis.worker.audio.sniff import Container


@dataclass(frozen=True, slots=True)
class Header:
    """The stream as its container describes it."""

    uncompressed: bool
    """Whether libsndfile decodes the samples: linear integers or floats, A-law or mu-law."""
    floats: bool
    """Whether the samples are stored as floats."""
    rate_hz: int
    channels: int
    frames: int | None = None
    """Samples a channel that the header states; None when it states no reliable number."""


#: Format tags (mmreg.h): integers, floats, A-law, mu-law. 0xFFFE has the tag in its sub-format.
_WAV_INTEGERS, _WAV_FLOATS, _WAV_ALAW, _WAV_MULAW, _WAV_EXTENSIBLE = 0x0001, 0x0003, 0x0006, 0x0007, 0xFFFE
_WAV_UNCOMPRESSED: Final = frozenset({_WAV_INTEGERS, _WAV_FLOATS, _WAV_ALAW, _WAV_MULAW})
#: Widths that libsndfile does not read. They go to FFmpeg, and the error names the codec, which is not in the table.
_WAV_UNREAD: Final = frozenset({(_WAV_INTEGERS, 64), (_WAV_FLOATS, 16)})
#: AIFF-C compression types that compress nothing; plain AIFF is "NONE".
_AIFF_FLOATS: Final = frozenset({b"fl32", b"FL32", b"fl64", b"FL64"})
_AIFF_UNCOMPRESSED: Final = _AIFF_FLOATS | {
    b"NONE", b"twos", b"sowt", b"raw ", b"in24", b"in32", b"alaw", b"ALAW", b"ulaw", b"ULAW",
}  # fmt: skip
#: AU encodings: mu-law, integers of 8 to 32 bits, floats of 32 and 64, A-law.
_AU_FLOATS: Final = frozenset({6, 7})
_AU_UNCOMPRESSED: Final = frozenset({1, 2, 3, 4, 5, 27}) | _AU_FLOATS
_CAF_UNCOMPRESSED: Final = frozenset({b"lpcm", b"alaw", b"ulaw"})
_CAF_LPCM_IS_FLOAT: Final = 1


def read_header(container: Container, data: bytes, offset: int) -> Header | None:
    """Read the header at ``offset``; None for containers whose header only the demuxer reads.

    Raises:
        CorruptAudio: the header is cut off or contradicts itself.
        NoSamples: a FLAC file ends before its first frame.
    """
    try:
        match container:
            case Container.WAV | Container.RF64:
                return _wav(_riff_format(data, offset), big_endian=data[offset : offset + 4] == b"RIFX")
            case Container.W64:
                return _wav(_w64_format(data, offset), big_endian=False)
            case Container.AIFF:
                return _aiff(data, offset)
            case Container.AU:
                return _au(data, offset)
            case Container.CAF:
                return _caf(data, offset)
            case Container.FLAC:
                return _flac(data, offset)
    except struct.error:
        raise CorruptAudio(f"the {container} header is cut off") from None
    return None


def chunks(data: bytes, start: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and stated size of the IFF chunks from ``start``. Chunks are padded to even sizes."""
    while start + 8 <= len(data):
        name, size = struct.unpack_from(order + "4sI", data, start)
        yield name, start + 8, size
        start += 8 + size + size % 2


def _riff_format(data: bytes, offset: int) -> bytes:
    order = ">" if data[offset : offset + 4] == b"RIFX" else "<"
    for name, start, size in chunks(data, offset + 12, order):
        if name == b"fmt ":
            return data[start : start + size]
    raise CorruptAudio("the WAV header has no format chunk")


def w64_chunks(data: bytes, offset: int) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of the W64 file at ``offset``: first four bytes of the identifier, start of the content, stated size.

    The stated size includes the 24 bytes before the content. Chunks are padded to multiples of 8 bytes.
    """
    start = offset + 40
    while start + 24 <= len(data):
        name, size = struct.unpack_from("<4s12xQ", data, start)
        yield name, start + 24, size
        start += (max(size, 24) + 7) // 8 * 8


def _w64_format(data: bytes, offset: int) -> bytes:
    for name, start, size in w64_chunks(data, offset):
        if name == b"fmt ":
            return data[start : start - 24 + size]
    raise CorruptAudio("the W64 header has no format chunk")


def _wav(fmt: bytes, *, big_endian: bool) -> Header:
    order = ">" if big_endian else "<"
    tag, channels, rate, bits = struct.unpack_from(order + "HHI6xH", fmt)
    if tag == _WAV_EXTENSIBLE:
        (tag,) = struct.unpack_from(order + "H", fmt, 24)
    uncompressed = tag in _WAV_UNCOMPRESSED and (tag, bits) not in _WAV_UNREAD
    return Header(uncompressed, uncompressed and tag == _WAV_FLOATS, rate, channels)


def _aiff(data: bytes, offset: int) -> Header:
    compressed = data[offset + 8 : offset + 12] == b"AIFC"
    for name, start, _ in chunks(data, offset + 12, ">"):
        if name == b"COMM":
            (channels,) = struct.unpack_from(">H", data, start)
            exponent, mantissa = struct.unpack_from(">HQ", data, start + 8)
            (kind,) = struct.unpack_from(">4s", data, start + 18) if compressed else (b"NONE",)
            rate = _whole_rate(_extended(exponent, mantissa))
            return Header(kind in _AIFF_UNCOMPRESSED, kind in _AIFF_FLOATS, rate, channels)
    raise CorruptAudio("the AIFF header has no common chunk")


def _extended(exponent: int, mantissa: int) -> float:
    """The value of an 80-bit float, in which AIFF stores its rate; 0 for negative numbers and impossible rates."""
    shift = exponent - 16_383 - 63
    return math.ldexp(mantissa, shift) if exponent < 0x8000 and -64 <= shift <= 0 else 0.0


def _au(data: bytes, offset: int) -> Header:
    encoding, rate, channels = struct.unpack_from(">12x3I", data, offset)
    return Header(encoding in _AU_UNCOMPRESSED, encoding in _AU_FLOATS, rate, channels)


def _caf(data: bytes, offset: int) -> Header:
    # Apple's specification requires the description chunk to be the first.
    name, rate, kind, flags, channels = struct.unpack_from(">4s8xd4sI8xI", data, offset + 8)
    if name != b"desc":
        raise CorruptAudio("the CAF header has no description chunk")
    floats = kind == b"lpcm" and bool(flags & _CAF_LPCM_IS_FLOAT)
    return Header(kind in _CAF_UNCOMPRESSED, floats, _whole_rate(rate), channels)


def _whole_rate(rate: float) -> int:
    return round(rate) if math.isfinite(rate) and 0 <= rate < 2**32 else 0


def _flac(data: bytes, offset: int) -> Header:
    """Read STREAMINFO (RFC 9639 section 8.2), then skip the other blocks to check that a frame follows."""
    kind, _, packed = struct.unpack_from(">B3s10xQ", data, offset + 4)
    if kind & 0x7F != 0:
        raise CorruptAudio("the FLAC header has no STREAMINFO block")
    start, is_last = offset + 4, False
    while not is_last and start + 4 <= len(data):
        head, high, low = struct.unpack_from(">BBH", data, start)
        is_last = bool(head & 0x80)
        start += 4 + (high << 16 | low)
    if start >= len(data):
        raise NoSamples("the FLAC file ends before its first frame")
    frames = packed & (2**36 - 1)
    return Header(False, False, packed >> 44, (packed >> 41 & 7) + 1, frames or None)
