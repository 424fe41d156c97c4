"""Finds files that ended early: the container states more bytes than the object has.

The upload or the recorder stopped. A length of zero or a placeholder states nothing: recorders that write to a pipe
leave it. A file that was cut exactly between two of its parts cannot be told from a whole one in ADTS, AMR, GSM, Ogg,
MP3 without a Xing header, and Matroska of unknown size. FLAC states its samples, which the caller compares.
"""

from __future__ import annotations

import struct
from typing import Final

from tussis.worker.audio import mpeg
from tussis.worker.audio.headers import chunks, w64_chunks
from tussis.worker.audio.sniff import Container

_PLACEHOLDER: Final = 2**31 - 2**16
"""Stated bytes from here on are placeholders: 2^31 and a little less (SoX, arecord), 2^32 - 1 (FFmpeg), -1."""

_MOST_PARTS: Final = 2**20
"""Boxes or elements that are read, which limits the time. Two hours in blocks of 20 ms have 360 000."""
_OGG_HEADER: Final = 27
"""Bytes of an Ogg page before its segment table (RFC 3533 section 6)."""

#: Matroska's elements that hold the audio and may have an unknown size (RFC 9559 section 5.1).
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675


def is_truncated(data: bytes, container: Container, offset: int) -> bool:
    """Whether the container at ``offset`` states more bytes than ``data`` has. ``data`` is the object as it came."""
    try:
        match container:
            case Container.MP4:
                return _mp4(data, offset)
            case Container.OGG:
                return _ogg(data, offset)
            case Container.MATROSKA:
                return _matroska(data, offset)
            case Container.MP3:
                return _mp3(data, offset)
            case _:
                start, stated = _audio_chunk(data, container, offset)
                return len(data) - start < stated < _PLACEHOLDER
    except (struct.error, IndexError):
        return True  # cut inside the header of a part


def _audio_chunk(data: bytes, container: Container, offset: int) -> tuple[int, int]:
    """Start and stated size of the chunk of uncompressed audio; zeros for a container without one."""
    match container:
        case Container.WAV | Container.RF64:
            return _wav(data, offset)
        case Container.W64:
            return next(
                ((start, size - 24) for name, start, size in w64_chunks(data, offset) if name == b"data"), (0, 0)
            )
        case Container.AIFF:
            found = chunks(data, offset + 12, ">")
            return next(((start, size) for name, start, size in found if name == b"SSND"), (0, 0))
        case Container.AU:
            start, size = struct.unpack_from(">II", data, offset + 4)
            return offset + start, size
        case Container.CAF:
            return _caf(data, offset)
    return 0, 0


def _wav(data: bytes, offset: int) -> tuple[int, int]:
    """RF64 has the size in its first chunk, ``ds64``, when the size of the data chunk is -1 (EBU Tech 3306)."""
    large = None
    for name, start, size in chunks(data, offset + 12, ">" if data.startswith(b"RIFX", offset) else "<"):
        if name == b"ds64":
            (large,) = struct.unpack_from("<8xQ", data, start)
        if name == b"data":
            return start, large if large is not None and size == 0xFFFFFFFF else size
    return 0, 0


def _caf(data: bytes, offset: int) -> tuple[int, int]:
    start = offset + 8
    while start + 12 <= len(data):
        name, size = struct.unpack_from(">4sq", data, start)
        if name == b"data" or size < 0:
            return start + 12, size
        start += 12 + size
    return 0, 0


def _mp4(data: bytes, offset: int) -> bool:
    """Whether an outer box ends behind the file. A size of 0 means "to the end of the file"."""
    start = offset
    for _ in range(_MOST_PARTS):
        if start + 8 > len(data):
            return start > len(data)
        size, kind = struct.unpack_from(">I4s", data, start)
        if size == 1:
            (size,) = struct.unpack_from(">8xQ", data, start)
        if size < 8 or not kind.isalnum():
            return False
        start += size
    return False


def _ogg(data: bytes, offset: int) -> bool:
    """Whether the file ends inside its last page."""
    page = data.rfind(b"OggS", offset)
    table = page + _OGG_HEADER
    segments = data[table : table + data[table - 1]]
    return len(segments) < data[table - 1] or table + len(segments) + sum(segments) > len(data)


def _mp3(data: bytes, offset: int) -> bool:
    """Whether the Xing header in the first frame states at least one frame more than there is."""
    frame = mpeg.mpeg_frame(data, offset)
    if frame is None:
        return False
    for name in (b"Xing", b"Info"):
        at = data.find(name, offset, offset + frame.size)
        if at >= 0:
            (flags,) = struct.unpack_from(">I", data, at + 4)
            has_frames, has_bytes = flags & 1, flags & 2
            if has_bytes:
                (stated,) = struct.unpack_from(">I", data, at + 8 + 4 * has_frames)
                return bool(stated > len(data) - offset + frame.size)
    return False


def _matroska(data: bytes, offset: int) -> bool:
    """Whether an element ends behind the file."""
    at = offset
    for _ in range(_MOST_PARTS):
        if at >= len(data):
            return False
        width = 9 - data[at].bit_length()
        if width > 4:
            return False  # not an identifier: something else follows the audio
        kind = int.from_bytes(data[at : at + width], "big")
        first = data[at + width]
        size_width = 9 - first.bit_length()
        content = at + width + size_width
        if size_width > 8:
            return False
        if content > len(data):
            return True
        unknown = (1 << 7 * size_width) - 1
        size = int.from_bytes(data[at + width : content], "big") & unknown
        if size == unknown:
            if kind not in (_SEGMENT, _CLUSTER):
                return False
            size = 0
        elif content + size > len(data):
            return True
        at = content if kind == _SEGMENT else content + size
    return False
