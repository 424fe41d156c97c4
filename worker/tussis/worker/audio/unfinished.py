"""Completes unfinished headers. A recorder writes the length of the audio last, and it was killed before that.

The stated length is 0, -1, or a guess beyond the end of the file. The recording is the rest of the file, so the length
is set to that. Only uncompressed audio is handled here: FFmpeg does the same for the codecs that it decodes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tussis.worker.audio.headers import chunks, w64_chunks
from tussis.worker.audio.sniff import Container

Patch = tuple[int, bytes]
"""A position in the object, and the bytes that belong there."""


def finished(data: bytes, container: Container, offset: int) -> bytes:
    """``data`` with the true lengths in the header at ``offset``; ``data`` itself when no length needs a correction.

    In WAV, RF64 and AIFF, an empty chunk of audio stays empty when only whole chunks follow it.
    """
    match container:
        case Container.WAV:
            patches = _wav(data, offset)
        case Container.RF64:
            patches = _rf64(data, offset)
        case Container.W64:
            patches = _w64(data, offset)
        case Container.AIFF:
            patches = _aiff(data, offset)
        case Container.AU:
            patches = _au(data, offset)
        case Container.CAF:
            patches = _caf(data, offset)
        case _:
            return data
    mended: bytearray | None = None
    for at, content in patches:
        mended = bytearray(data) if mended is None else mended
        mended[at : at + len(content)] = content
    return data if mended is None else bytes(mended)


def _wav(data: bytes, offset: int) -> Iterator[Patch]:
    """libsndfile and pydub read to the end of the file when the size is too large, but not when it is 0."""
    order = ">" if data.startswith(b"RIFX", offset) else "<"
    for name, start, size in chunks(data, offset + 12, order):
        if name == b"data":
            if size == 0 and _is_sound(data, start, order):
                yield start - 4, struct.pack(order + "I", len(data) - start)
            return


def _rf64(data: bytes, offset: int) -> Iterator[Patch]:
    """The chunk ``ds64`` has the size when the size of the data chunk is -1 (EBU Tech 3306).

    BW64 (ITU-R BS.2088) is the same format with another name, which libsndfile does not read.
    """
    if data.startswith(b"BW64", offset):
        yield offset, b"RF64"
    table = None
    for name, start, size in chunks(data, offset + 12, "<"):
        if name == b"ds64":
            table = start
        if name == b"data":
            if table is None or table + 24 > len(data):
                return
            (stated,) = struct.unpack_from("<Q", data, table + 8) if size == 0xFFFFFFFF else (size,)
            if (stated == 0 and _is_sound(data, start, "<")) or stated > len(data) - start:
                yield table, struct.pack("<QQQ", len(data) - offset - 8, len(data) - start, 0)
                yield start - 4, b"\xff\xff\xff\xff"
            return


def _w64(data: bytes, offset: int) -> Iterator[Patch]:
    """Sizes have 64 bits and include the 24 bytes of the chunk's header."""
    for name, start, size in w64_chunks(data, offset):
        if name == b"data":
            if size <= 24 or size > len(data) - start + 24:
                yield start - 8, struct.pack("<Q", len(data) - start + 24)
                yield offset + 16, struct.pack("<Q", len(data) - offset)
            return


def _aiff(data: bytes, offset: int) -> Iterator[Patch]:
    """The chunk ``SSND`` has 8 bytes before the audio. FFmpeg also needs the size of the whole file."""
    frames = None
    for name, start, size in chunks(data, offset + 12, ">"):
        if name == b"COMM":
            frames = start + 2
        if name == b"SSND":
            if (size <= 8 and _is_sound(data, start + 8, ">")) or size > len(data) - start:
                yield start - 4, struct.pack(">I", len(data) - start)
                yield offset + 4, struct.pack(">I", len(data) - offset - 8)
                if frames is not None:
                    yield frames, bytes(4)  # unknown: every reader computes it from the size
            return


def _au(data: bytes, offset: int) -> Iterator[Patch]:
    """In this format -1 is the value for an unknown size."""
    start, size = struct.unpack_from(">II", data, offset + 4)
    rest = len(data) - offset - start
    if rest > 0 and (size == 0 or size > rest):
        yield offset + 8, b"\xff\xff\xff\xff"


def _caf(data: bytes, offset: int) -> Iterator[Patch]:
    """In this format -1 means "until the end of the file". The size includes the 4 bytes before the audio."""
    start = offset + 8
    while start + 12 <= len(data):
        name, size = struct.unpack_from(">4sq", data, start)
        start += 12
        if name == b"data":
            if size <= 4 or size > len(data) - start:
                yield start - 8, struct.pack(">q", len(data) - start)
            return
        if size < 0:
            return
        start += size


def _is_sound(data: bytes, start: int, order: str) -> bool:
    """Whether an empty chunk of audio is followed by anything but whole chunks."""
    end = start
    for name, begin, size in chunks(data, start, order):
        if not (name.isascii() and name.decode("ascii", "replace").isprintable()):
            break
        end = begin + size
    return end < len(data) - 1 or (end > len(data) + 1)
