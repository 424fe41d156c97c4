"""Audio files made in memory, for codecs and layouts that the pack of recordings does not have."""

from __future__ import annotations

import io
import struct
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream


def encoded(samples: npt.NDArray[np.float32], rate_hz: int, container: str, codec: str) -> bytes:
    """Encode ``samples`` (channels, n) in [-1, 1] with FFmpeg's encoder and muxer of these names."""
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


def muxed(
    path: Path, rate_hz: int, *streams: tuple[npt.NDArray[np.float32], str], options: tuple[str, ...] = ()
) -> bytes:
    """Write a file of audio streams to ``path`` with the ``ffmpeg`` program. The suffix names the container.

    The program has encoders that PyAV lacks, and it encodes more than two channels. PyAV crashes on eight planes.

    Args:
        path: the file to write. The sources are written to the same folder and stay there.
        rate_hz: samples per second, of every stream.
        streams: samples (channels, n), and the name of their encoder.
        options: options of the output.
    """
    inputs: list[str | Path] = []
    codecs: list[str] = []
    for number, (samples, codec) in enumerate(streams):
        source = path.with_name(f"{path.stem}-{number}.source.wav")
        source.write_bytes(wav(interleaved(samples), tag=3, bits=32, channels=len(samples), rate_hz=rate_hz))
        inputs += ["-i", source]
        codecs += ["-map", str(number), f"-c:a:{number}", codec]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", *inputs, *codecs, *options, path]
    subprocess.run(command, check=True, timeout=60)
    return path.read_bytes()


def wav(
    payload: bytes, *, tag: int = 1, channels: int = 1, rate_hz: int = 16_000, bits: int = 16, extra: bytes = b""
) -> bytes:
    """Return a WAV file with ``payload``. The header has the given numbers, which may be wrong."""
    frame_bytes = channels * bits // 8
    fmt = struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * frame_bytes & 0xFFFFFFFF, frame_bytes & 0xFFFF, bits)
    chunks = b"fmt " + struct.pack("<I", len(fmt + extra)) + fmt + extra + b"data" + struct.pack("<I", len(payload))
    return b"RIFF" + struct.pack("<I", 4 + len(chunks) + len(payload)) + b"WAVE" + chunks + payload


def interleaved(samples: npt.NDArray[Any]) -> bytes:
    """Return (channels, n) as the bytes of a WAV data chunk, in the array's byte order."""
    return samples.T.tobytes()
