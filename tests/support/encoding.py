"""Audio files made in memory, for codecs and layouts that the pack of recordings does not hold."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream


def encoded(samples: npt.NDArray[np.float32], rate_hz: int, container: str, codec: str) -> bytes:
    """``samples`` (channels, n) in [-1, 1], through FFmpeg's encoder and muxer of these names."""
    target = io.BytesIO()
    layout = {1: "mono", 2: "stereo"}[samples.shape[0]]
    with av.open(target, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate_hz, layout=layout)
        assert isinstance(stream, AudioStream)
        stream.bit_rate = 64_000
        source = AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
        source.sample_rate = rate_hz
        resampler = av.AudioResampler(
            stream.codec_context.format.name, layout, rate_hz, stream.codec_context.frame_size or None
        )
        done = 0
        for frame in [*resampler.resample(source), *resampler.resample(None)]:
            frame.pts, frame.time_base = done, Fraction(1, rate_hz)
            done += frame.samples
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return target.getvalue()


def wav(
    payload: bytes, *, tag: int = 1, channels: int = 1, rate_hz: int = 16_000, bits: int = 16, extra: bytes = b""
) -> bytes:
    """A WAV file around ``payload``, its header written from the numbers given, however wrong."""
    frame_bytes = channels * bits // 8
    fmt = struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * frame_bytes & 0xFFFFFFFF, frame_bytes & 0xFFFF, bits)
    chunks = b"fmt " + struct.pack("<I", len(fmt + extra)) + fmt + extra + b"data" + struct.pack("<I", len(payload))
    return b"RIFF" + struct.pack("<I", 4 + len(chunks) + len(payload)) + b"WAVE" + chunks + payload


def interleaved(samples: npt.NDArray[Any]) -> bytes:
    """(channels, n) as the bytes of a WAV data chunk, in the array's own byte order."""
    return samples.T.tobytes()
