"""Encode and decode sound in memory with the codecs of phones, messengers and recorders.

The coughs of the pack were recorded through a telephone exchange and a messenger, the backgrounds were not. The codec
is drawn by the same rules for both classes, so that it carries no information about the class.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import av
import numpy as np
import soundfile
import torch
import torchaudio

from training.pack import Wave
from tussis.shared.dsp import SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Codec:
    """One encoder with its settings."""

    name: str
    rate_hz: int
    container: str
    bit_rate: int = 0
    weight: float = 1.0
    options: tuple[tuple[str, str], ...] = field(default=())
    library: str = "ffmpeg"


#: The codecs of the coughs' recordings are drawn twice as often.
CODECS: Final = (
    Codec("libmp3lame", 8_000, "mp3", 16_000, weight=2.0),
    Codec("libmp3lame", 8_000, "mp3", 32_000, weight=2.0),
    Codec("libmp3lame", 48_000, "mp3", 64_000, weight=2.0),
    Codec("libmp3lame", 44_100, "mp3", 128_000),
    Codec("libopus", 48_000, "ogg", 12_000, options=(("application", "voip"), ("compression_level", "2"))),
    Codec("libopus", 48_000, "ogg", 32_000, options=(("compression_level", "2"),)),
    Codec("libopencore_amrnb", 8_000, "amr", 12_200),
    Codec("libopencore_amrnb", 8_000, "amr", 4_750, weight=0.5),
    Codec("VORBIS", 44_100, "OGG", library="sndfile"),
    Codec("GSM610", 8_000, "WAV", library="sndfile"),
    Codec("aac", 44_100, "adts", 64_000),
    Codec("aac", 16_000, "adts", 32_000),
    Codec("pcm_mulaw", 8_000, "wav"),
    Codec("pcm_alaw", 8_000, "wav"),
    Codec("g722", 16_000, "wav", weight=0.5),
    Codec("g726", 8_000, "wav", 32_000, weight=0.5),
    Codec("adpcm_ima_wav", 8_000, "wav", weight=0.5),
)


def draw(rng: np.random.Generator) -> Codec:
    """One of :data:`CODECS`, by weight."""
    weights = np.array([codec.weight for codec in CODECS])
    return CODECS[int(rng.choice(len(CODECS), p=weights / weights.sum()))]


def round_trip(wave: Wave, codec: Codec) -> Wave:
    """Encode and decode: float32 (n,) at 16 kHz to the same length, without delay."""
    coded = _coded(wave, codec)
    delay = _delay(codec)
    shifted = np.zeros_like(wave)
    taken = coded[delay : delay + wave.shape[0]]
    shifted[: taken.shape[0]] = taken
    return shifted


def _coded(wave: Wave, codec: Codec) -> Wave:
    source = resample(wave, SAMPLE_RATE, codec.rate_hz)
    match codec.library:
        case "sndfile":
            decoded = _sndfile(source, codec)
        case _:
            decoded = _ffmpeg(source, codec)
    return resample(decoded, codec.rate_hz, SAMPLE_RATE)


def _sndfile(source: Wave, codec: Codec) -> Wave:
    file = io.BytesIO()
    soundfile.write(file, source, codec.rate_hz, format=codec.container, subtype=codec.name)
    file.seek(0)
    samples: Wave = soundfile.read(file, dtype="float32")[0]
    return samples


def _ffmpeg(source: Wave, codec: Codec) -> Wave:
    file = io.BytesIO()
    with av.open(file, "w", format=codec.container) as container:
        stream = container.add_stream(codec.name, rate=codec.rate_hz, options=dict(codec.options))
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        if codec.bit_rate:
            stream.bit_rate = codec.bit_rate
        frame = av.AudioFrame.from_ndarray(np.clip(source, -1, 1)[None], format="flt", layout="mono")
        frame.sample_rate = codec.rate_hz
        to_format = av.AudioResampler(stream.format.name, "mono", codec.rate_hz)
        for part in (*to_format.resample(frame), *to_format.resample(None)):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as container:
        to_float = av.AudioResampler("flt", "mono", codec.rate_hz)
        parts = [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in to_float.resample(frame)]
        parts += [part.to_ndarray()[0] for part in to_float.resample(None)]
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros_like(source)


@lru_cache(maxsize=64)
def _delay(codec: Codec) -> int:
    """The codec's delay in samples at 16 kHz, measured with a burst of noise."""
    rng = np.random.default_rng(0)
    probe = np.zeros(2 * SAMPLE_RATE, np.float32)
    burst = rng.normal(0, 0.2, SAMPLE_RATE // 2).astype(np.float32)
    burst = np.convolve(burst, np.ones(8) / 8, mode="same").astype(np.float32)  # within the band of every codec
    probe[8_000 : 8_000 + burst.shape[0]] = burst
    coded = _coded(probe, codec)
    size = 1 << (coded.shape[0] + probe.shape[0]).bit_length()
    match = np.fft.irfft(np.fft.rfft(coded, size) * np.conj(np.fft.rfft(probe, size)), size)
    return int(match[:6_400].argmax())


def resample(wave: Wave, from_hz: int, to_hz: int) -> Wave:
    """Resample with torchaudio's default interpolation: float32 (n,) to (m,)."""
    if from_hz == to_hz:
        return wave
    resampled: Wave = _resampler(from_hz, to_hz)(torch.from_numpy(wave)).numpy()
    return resampled


@lru_cache(maxsize=16)
def _resampler(from_hz: int, to_hz: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(from_hz, to_hz)
