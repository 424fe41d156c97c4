"""Decodes uncompressed audio with libsndfile."""

from __future__ import annotations

import io
from typing import Final

import soundfile

from tussis.shared.errors import CodecUnsupportedByProfile, CorruptAudio
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.samples import D, OpenStream, Source
from tussis.worker.audio.sniff import Container
from tussis.worker.audio.table import SOUNDFILE, SOUNDFILE_SUBTYPES

#: Frames read at a time.
_BLOCK: Final = 2**18


class _Memory(io.BytesIO):
    """Bytes that allow a seek outside their range, as a file does.

    libsndfile makes such seeks in damaged files. An exception in its callback is printed and not raised.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        # getbuffer() would tell the size too, but it copies all bytes.
        self._size = len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._size}[whence]
        return super().seek(min(max(base + offset, 0), 2**62))


def decode_uncompressed(data: bytes, container: Container, limits: Limits, open_stream: OpenStream[D]) -> D:
    """Decode integers, floats, A-law or mu-law in WAV, RF64, W64, AIFF, AU or CAF.

    A file that ends early is decoded up to its last whole frame. The header's lengths cannot reserve more memory than
    the object's size allows.

    Raises:
        CorruptAudio, CodecUnsupportedByProfile, NoSamples, NonFiniteSamples, UnsupportedRate, TooManyChannels,
        TooLong.
    """
    try:
        with soundfile.SoundFile(_Memory(data)) as source:
            codec = SOUNDFILE_SUBTYPES.get(source.subtype)
            if codec is None:
                raise CodecUnsupportedByProfile(f"{source.subtype} samples in {container} are not supported")
            rate, channels = source.samplerate, source.channels
            gathered = open_stream(rate, channels, Source(container.value, codec, SOUNDFILE))
            # Every sample takes at least a byte, so the object's size limits the number of frames.
            frames = min(source.frames, len(data) // channels)
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
