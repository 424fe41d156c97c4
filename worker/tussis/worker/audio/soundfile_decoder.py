"""Decodes uncompressed audio with libsndfile."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import soundfile

from tussis.shared.errors import CodecUnsupportedByProfile, CorruptAudio
from tussis.worker.audio.canonical import CanonicalFile
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.samples import D, OpenStream, Source
from tussis.worker.audio.sniff import Container
from tussis.worker.audio.table import SOUNDFILE, SOUNDFILE_SUBTYPES

if TYPE_CHECKING:
    from typing_extensions import Buffer  # of collections.abc since Python 3.12

#: Frames read at a time.
_BLOCK: Final = 2**18


class _Memory(io.RawIOBase):
    """The two parts of a file, for libsndfile. It allows a seek outside its range, as a file does.

    libsndfile makes such seeks in damaged files. An exception in its callback is printed and not raised.
    """

    def __init__(self, file: CanonicalFile) -> None:
        super().__init__()
        self._head, self._samples = memoryview(file.head), file.samples
        self._size = len(file.head) + len(file.samples)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        into, done = memoryview(buffer).cast("B"), 0
        for start, part in ((0, self._head), (len(self._head), self._samples)):
            found = part[max(self._at - start, 0) :][: len(into) - done] if self._at >= start else part[:0]
            into[done : done + len(found)] = found
            done += len(found)
            self._at += len(found)
        return done

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = min(max(base + offset, 0), 2**62)
        return self._at


def decode_uncompressed(file: CanonicalFile, container: Container, limits: Limits, open_stream: OpenStream[D]) -> D:
    """Decode integers, floats, A-law or mu-law in WAV, RF64, W64, AIFF, AU or CAF.

    A file that ends early is decoded up to its last whole frame. The header's lengths cannot reserve more memory than
    the object's size allows.

    Raises:
        CorruptAudio, CodecUnsupportedByProfile, NoSamples, NonFiniteSamples, UnsupportedRate, TooManyChannels,
        TooLong.
    """
    try:
        with soundfile.SoundFile(_Memory(file)) as source:
            codec = SOUNDFILE_SUBTYPES.get(source.subtype)
            if codec is None:
                raise CodecUnsupportedByProfile(f"{source.subtype} samples in {container} are not supported")
            rate, channels = source.samplerate, source.channels
            gathered = open_stream(rate, channels, Source(container.value, codec, SOUNDFILE))
            # Every sample takes at least a byte, so the size of the samples limits the number of frames.
            frames = min(source.frames, len(file.samples) // channels)
            limits.check_length(frames, rate, channels)
            done = 0
            while done < frames:
                block = source.read(min(_BLOCK, frames - done), dtype="float32", always_2d=True)
                if len(block) == 0:
                    break
                gathered.add(block.T)
                done += len(block)
    except soundfile.LibsndfileError as error:
        raise CorruptAudio(f"libsndfile cannot read this {container} file: {error.error_string}") from None
    return gathered.audio(incomplete=done < frames)
