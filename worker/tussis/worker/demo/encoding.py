"""Encodes samples as an audio file, in the formats of phones, browsers and telephony."""

from __future__ import annotations

import io
from enum import Enum

import numpy as np
from numpy.typing import NDArray


class Format(Enum):
    """A container and a codec: file suffix, then the names of both in libsndfile or FFmpeg."""

    WAV_8 = (".wav", "soundfile", "WAV", "PCM_U8")
    WAV_16 = (".wav", "soundfile", "WAV", "PCM_16")
    WAV_24 = (".wav", "soundfile", "WAV", "PCM_24")
    WAV_FLOAT = (".wav", "soundfile", "WAV", "FLOAT")
    WAV_ULAW = (".wav", "soundfile", "WAV", "ULAW")
    FLAC = (".flac", "soundfile", "FLAC", "PCM_16")
    MP3 = (".mp3", "soundfile", "MP3", "MPEG_LAYER_III")
    VORBIS = (".ogg", "soundfile", "OGG", "VORBIS")
    OPUS = (".opus", "soundfile", "OGG", "OPUS")
    M4A = (".m4a", "pyav", "mp4", "aac")
    WEBM = (".webm", "pyav", "webm", "libopus")

    @property
    def suffix(self) -> str:
        """The suffix of the file's name, with the dot."""
        return self.value[0]


def encode(samples: NDArray[np.float32], rate_hz: int, form: Format) -> bytes:
    """Encode ``samples``, float32 (channels, n) in [-1, 1] with one or two channels; return the bytes of the file."""
    _, library, container, codec = form.value
    if library == "soundfile":
        return _with_soundfile(samples, rate_hz, container, codec)
    return _with_pyav(samples, rate_hz, container, codec)


def _with_soundfile(samples: NDArray[np.float32], rate_hz: int, container: str, codec: str) -> bytes:
    import soundfile

    target = io.BytesIO()
    soundfile.write(target, samples.T, rate_hz, format=container, subtype=codec)
    return target.getvalue()


def _with_pyav(samples: NDArray[np.float32], rate_hz: int, container: str, codec: str) -> bytes:
    import av
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream

    target = io.BytesIO()
    layout = {1: "mono", 2: "stereo"}[len(samples)]
    with av.open(target, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate_hz, layout=layout)
        assert isinstance(stream, AudioStream)
        source = AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
        source.sample_rate = rate_hz
        context = stream.codec_context
        cutter = av.AudioResampler(context.format.name, layout, rate_hz, context.frame_size or None)
        for frame in [*cutter.resample(source), *cutter.resample(None)]:
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return target.getvalue()
