"""Headers that a recorder left unfinished: it writes the length of the sound last, and it was killed before.

The length stands at 0, at -1, or at a guess beyond the file. What is there is the recording, so the length is set to
the rest of the file. Only uncompressed audio is looked at here: FFmpeg does the same for the codecs that it decodes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tussis.worker.audio.headers import chunks, w64_chunks
from tussis.worker.audio.sniff import Container

Patch = tuple[int, bytes]
"""A position in the object, and the bytes that belong there."""


def finished(data: bytes, container: Container, offset: int) -> bytes:
    """``data`` with the true lengths in the header at ``offset``; ``data`` itself where they are no worse than usual.

    An empty chunk of sound stays empty when nothing but whole chunks follows it.
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
    """libsndfile and pydub read to the end where the size is too large, but not where it is 0."""
    order = ">" if data.startswith(b"RIFX", offset) else "<"
    for name, start, size in chunks(data, offset + 12, order):
        if name == b"data":
            if size == 0 and _is_sound(data, start, order):
                yield start - 4, struct.pack(order + "I", len(data) - start)
            return


def _rf64(data: bytes, offset: int) -> Iterator[Patch]:
    """EBU Tech 3306: the chunk ``ds64`` has the size when the data chunk's own is -1. BW64 (ITU-R BS.2088) is the same
    under another name, which libsndfile does not know."""
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
    """Sizes are of 64 bits and count their chunk's head of 24 bytes."""
    for name, start, size in w64_chunks(data, offset):
        if name == b"data":
            if size <= 24 or size > len(data) - start + 24:
                yield start - 8, struct.pack("<Q", len(data) - start + 24)
                yield offset + 16, struct.pack("<Q", len(data) - offset)
            return


def _aiff(data: bytes, offset: int) -> Iterator[Patch]:
    """The chunk ``SSND`` begins with 8 bytes of its own; FFmpeg also needs the size of the whole."""
    frames = None
    for name, start, size in chunks(data, offset + 12, ">"):
        if name == b"COMM":
            frames = start + 2
        if name == b"SSND":
            if (size <= 8 and _is_sound(data, start + 8, ">")) or size > len(data) - start:
                yield start - 4, struct.pack(">I", len(data) - start)
                yield offset + 4, struct.pack(">I", len(data) - offset - 8)
                if frames is not None:
                    yield frames, bytes(4)  # unknown, which every reader takes from the size
            return


def _au(data: bytes, offset: int) -> Iterator[Patch]:
    """-1 is the format's own word for unknown."""
    start, size = struct.unpack_from(">II", data, offset + 4)
    rest = len(data) - offset - start
    if rest > 0 and (size == 0 or size > rest):
        yield offset + 8, b"\xff\xff\xff\xff"


def _caf(data: bytes, offset: int) -> Iterator[Patch]:
    """-1 is the format's own word for "until the end"; the size counts the 4 bytes before the sound."""
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
    """Whether what follows an empty chunk of sound is more than other chunks."""
    end = start
    for name, begin, size in chunks(data, start, order):
        if not (name.isascii() and name.decode("ascii", "replace").isprintable()):
            break
        end = begin + size
    return end < len(data) - 1 or (end > len(data) + 1)
