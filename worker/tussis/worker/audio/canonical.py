"""Makes the header that libsndfile reads: the one format that was examined, and the samples. Nothing else.

libsndfile reads chunks in its own way: it takes the last of several formats, skips bytes between chunks, and looks for
the next chunk. So a file could show one format to :mod:`tussis.worker.audio.headers`, and another one to libsndfile,
with codecs that it shall not run. A file of this module has no place for a second format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from tussis.shared.errors import CorruptAudio
from tussis.worker.audio.headers import chunks, w64_chunks
from tussis.worker.audio.sniff import Container

_LONGEST: Final = 2**32 - 1
#: Bytes of the descriptions that have a fixed size: extensible WAV's, AIFF's and CAF's.
_MOST_FMT: Final = 40
_COMM, _COMPRESSED_COMM = 18, 22
_CAF_DESC: Final = 32


class CanonicalFile(NamedTuple):
    """A file in two parts. The samples are a view of the recording: a copy would double the memory of a long one."""

    head: bytes
    samples: memoryview


def canonical(data: bytes, container: Container, offset: int) -> CanonicalFile:
    """A file with the format and the samples of the uncompressed file at ``offset``, as WAV, AIFF, AU or CAF.

    Raises :class:`CorruptAudio` when the samples are missing, come before their format, or are there twice.
    """
    match container:
        case Container.WAV | Container.RF64:
            return _wav(data, offset)
        case Container.W64:
            found = [(name, start, max(size - 24, 0)) for name, start, size in w64_chunks(data, offset)]
            fmt, sound = _parts(found, b"fmt ", b"data", container)
            return _riff(b"RIFF", "<", bytes(_cut(data, fmt)[:_MOST_FMT]), _cut(data, sound))
        case Container.AIFF:
            return _aiff(data, offset)
        case Container.AU:
            start, _, encoding, rate, channels = struct.unpack_from(">5I", data, offset + 4)
            head = struct.pack(">4s5I", b".snd", 24, _LONGEST, encoding, rate, channels)
            return CanonicalFile(head, memoryview(data)[offset + start :])
        case Container.CAF:
            return _caf(data, offset)
    raise AssertionError(container)


def _wav(data: bytes, offset: int) -> CanonicalFile:
    magic = b"RIFX" if data.startswith(b"RIFX", offset) else b"RIFF"
    order = ">" if magic == b"RIFX" else "<"
    found = list(chunks(data, offset + 12, order))
    if not any(name == b"data" for name, _, _ in found):
        # A chunk of odd size without its byte of padding hides the rest. Only samples are looked for, no format.
        fmt = next((start + size for name, start, size in found if name == b"fmt "), len(data))
        if (at := data.find(b"data", fmt)) >= 0 and at + 8 <= len(data):
            found.append((b"data", at + 8, struct.unpack_from(order + "I", data, at + 4)[0]))
    fmt_chunk, sound = _parts(found, b"fmt ", b"data", Container.WAV)
    large = next((start for name, start, _ in found if name == b"ds64"), None)
    if large is not None and sound[1] == _LONGEST:  # RF64 has the size elsewhere
        sound = (sound[0], struct.unpack_from("<8xQ", data, large)[0])
    return _riff(magic, order, bytes(_cut(data, fmt_chunk)[:_MOST_FMT]), _cut(data, sound))


def _riff(magic: bytes, order: str, fmt: bytes, sound: memoryview) -> CanonicalFile:
    size = min(len(sound), _LONGEST)  # this one means: to the end
    head = struct.pack(order + "4sI4s4sI", magic, min(20 + len(fmt) + size, _LONGEST), b"WAVE", b"fmt ", len(fmt))
    return CanonicalFile(head + fmt + struct.pack(order + "4sI", b"data", size), sound)


def _aiff(data: bytes, offset: int) -> CanonicalFile:
    kind = data[offset + 8 : offset + 12]
    comm, sound = _parts(chunks(data, offset + 12, ">"), b"COMM", b"SSND", Container.AIFF, in_order=False)
    described = bytes(_cut(data, comm))
    # AIFF-C has the compression's name behind its code.
    described = described[:_COMPRESSED_COMM] + b"\0\0" if kind == b"AIFC" else described[:_COMM]
    samples = _cut(data, sound)
    head = struct.pack(">4s4sI", kind, b"COMM", len(described)) + described
    head += struct.pack(">4sI", b"SSND", min(len(samples), _LONGEST))
    return CanonicalFile(struct.pack(">4sI", b"FORM", min(len(head) + len(samples), _LONGEST)) + head, samples)


def _caf(data: bytes, offset: int) -> CanonicalFile:
    found = []
    start = offset + 8
    while start + 12 <= len(data):
        name, size = struct.unpack_from(">4sq", data, start)
        start += 12
        found.append((name, start, len(data) - start if size < 0 else size))
        if size < 0:
            break
        start += size
    desc, sound = _parts(found, b"desc", b"data", Container.CAF)
    samples = _cut(data, sound)
    head = b"caff\0\x01\0\0" + struct.pack(">4sq", b"desc", _CAF_DESC) + bytes(_cut(data, desc)[:_CAF_DESC])
    return CanonicalFile(head + struct.pack(">4sq", b"data", len(samples)), samples)


def _parts(
    found: Iterable[tuple[bytes, int, int]], form: bytes, sound: bytes, container: Container, *, in_order: bool = True
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Start and size of the first format, which was examined, and of the samples."""
    form_at = sound_at = None
    for name, start, size in found:
        if name == form and form_at is None:
            form_at = (start, size)
        elif name == sound:
            if sound_at is not None:
                raise CorruptAudio(f"the {container} file has two chunks of audio")
            if in_order and form_at is None:
                raise CorruptAudio(f"the {container} file has its audio before its format")
            sound_at = (start, size)
    if form_at is None or sound_at is None:
        raise CorruptAudio(f"the {container} file has no chunk of audio")
    return form_at, sound_at


def _cut(data: bytes, part: tuple[int, int]) -> memoryview:
    start, size = part
    return memoryview(data)[start : start + size]
