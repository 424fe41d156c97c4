"""Checks the boxes of an MP4 file before FFmpeg reads them: some can make it allocate far more than the file's size.

FFmpeg makes an index entry for every stated sample. Two boxes (ISO/IEC 14496-12) can state samples without describing
each one: the sample sizes (``stsz``, section 8.7.3) when all samples have one size, and a track run (``trun``, section
8.8.8) without fields for each sample. A file of 40 kilobytes took 1.1 GB. QuickTime's compressed header (``cmov``) may
unpack to a thousand times its size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from tussis.shared.errors import CorruptAudio

#: The boxes in which FFmpeg's demuxer looks for other boxes.
_HOLDS_BOXES: Final = frozenset(
    {
        b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"edts", b"tref", b"udta", b"wave", b"ilst",
        b"mvex", b"moof", b"traf", b"cmov", b"iprp", b"ipco", b"grpl", b"sinf", b"schi",
    }
)  # fmt: skip
#: FFmpeg's own limit on nesting.
_MAX_DEPTH: Final = 10
#: An hour in fragments of a tenth of a second has 250 000.
_MAX_BOXES: Final = 2**20
#: Samples that a small file may state: 22 s of PCM at 48 kHz, 38 MB of index. A file with more bytes may state one
#: sample for each byte.
_FREE_SAMPLES: Final = 2**20
#: Most samples of all track runs: three minutes of PCM at 48 kHz, 300 MB of index. Outside of fragments FFmpeg indexes
#: PCM by chunks, so no such limit is needed there.
_MAX_RUN_SAMPLES: Final = 2**23

#: Flags of a track run's optional fields: those before the samples, and those of each sample.
_RUN_FIELDS: Final = (0x001, 0x004)
_SAMPLE_FIELDS: Final = (0x100, 0x200, 0x400, 0x800)


def check_boxes(data: bytes, offset: int) -> None:
    """Raise :class:`CorruptAudio` for a file whose boxes state more samples than it can hold."""
    stated = in_runs = 0
    most = max(len(data), _FREE_SAMPLES)
    for boxes, (kind, start, end) in enumerate(_boxes(data, offset, len(data), 0)):
        if boxes >= _MAX_BOXES:
            raise CorruptAudio(f"the MP4 file has more than {_MAX_BOXES} boxes")
        if kind == b"cmov":
            raise CorruptAudio("the QuickTime header is compressed, which is not supported")
        if kind == b"stsz" and end - start >= 12:
            stated += _samples_of_one_size(data, start)
        if kind == b"trun" and end - start >= 8:
            in_runs += _samples_not_described(data, start, end)
        if stated > most or in_runs > min(most, _MAX_RUN_SAMPLES):
            raise CorruptAudio(f"the MP4 file states {stated + in_runs} samples in {len(data)} bytes")


def readable_end(data: bytes, offset: int) -> int:
    """The end of the part that FFmpeg can read: before a fragment's header (``moof``) in which the upload was cut."""
    start = offset
    while start + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, start)
        if size == 1 and start + 16 <= len(data):
            (size,) = struct.unpack_from(">Q", data, start + 8)
        if kind == b"moof" and start + size > len(data):
            return start
        if size < 8:
            break
        start += size
    return len(data)


def _boxes(data: bytes, start: int, end: int, depth: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of every box, outer before inner. An overlong box ends with its parent."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1 and start + 16 <= end:
            (size,) = struct.unpack_from(">Q", data, start + 8)
            head = 16
        stop = end if size == 0 else min(start + size, end)
        if stop < start + head:
            return
        yield kind, start + head, stop
        if kind in _HOLDS_BOXES and depth < _MAX_DEPTH:
            yield from _boxes(data, start + head, stop, depth + 1)
        elif kind == b"meta" and depth < _MAX_DEPTH:
            # In ISO's format a version precedes the inner boxes. In QuickTime's there is none.
            yield from _boxes(data, start + head + 4, stop, depth + 1)
            yield from _boxes(data, start + head, stop, depth + 1)
        start = stop


def _samples_of_one_size(data: bytes, start: int) -> int:
    """Number of samples of a ``stsz`` without a list of sizes; 0 for one with a list."""
    size, count = struct.unpack_from(">4xII", data, start)
    return int(count) if size else 0


def _samples_not_described(data: bytes, start: int, end: int) -> int:
    """Samples that a ``trun`` states but does not describe. A file that was cut ends inside its last ``trun``."""
    flags, count = struct.unpack_from(">II", data, start)
    described = 4 * sum(bool(flags & field) for field in _SAMPLE_FIELDS)
    if not described:
        return int(count)
    room = end - start - 8 - 4 * sum(bool(flags & field) for field in _RUN_FIELDS)
    return max(0, int(count) - max(0, room) // described)
