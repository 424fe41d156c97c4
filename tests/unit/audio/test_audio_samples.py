"""Uncompressed samples against plain arithmetic, and the same codec through every container."""

from __future__ import annotations

import io
import struct
import wave
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from tests.support.encoding import encoded, interleaved, wav
from tests.support.recordings import cough_like
from tussis.shared.errors import CodecUnsupportedByProfile, CorruptAudio, NonFiniteSamples
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.samples import full_scale

LIMITS: Final = Limits()
EDGES: Final = (0.0, 1.0, -1.0, 0.5, -0.5, 1e-6)


def integers(bits: int, channels: int = 2, count: int = 2_000) -> npt.NDArray[np.int64]:
    """Random integers of this width with its extremes among them, (channels, count)."""
    noise = np.random.default_rng(bits)
    top = 2 ** (bits - 1)
    values = noise.integers(-top, top, (channels, count))
    values[:, :4] = [-top, top - 1, 0, -1]
    return values


def packed(values: npt.NDArray[np.int64], width: int) -> bytes:
    """As little-endian PCM of ``width`` bytes, 8-bit unsigned as in WAV: one sample at a time, by the stdlib."""
    offset = 128 if width == 1 else 0
    return b"".join(
        (int(value) + offset).to_bytes(width, "little", signed=width > 1) for frame in values.T for value in frame
    )


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_integers_are_divided_by_two_to_the_bits_minus_one(bits: int) -> None:
    values = integers(bits)
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setparams((2, bits // 8, 22_050, 0, "NONE", "not compressed"))
        file.writeframes(packed(values, bits // 8))

    audio = decode(target.getvalue(), LIMITS)

    # One rounding, to float32: a 32-bit integer does not fit into its 24 bits of precision.
    exact = (values.astype(np.float64) / 2.0 ** (bits - 1)).astype(np.float32)
    assert np.array_equal(audio.samples, exact)
    assert (audio.rate_hz, audio.channels, audio.decoder) == (22_050, 2, "soundfile")
    assert audio.codec == ("pcm_u8" if bits == 8 else f"pcm_s{bits}")


@pytest.mark.parametrize("kind", ["<f4", "<f8"])
def test_floats_keep_their_values_beyond_full_scale(kind: str) -> None:
    values = np.array([[*EDGES, 4.0, -1_000.0, 3.0e38, 1.0e-44]], dtype=kind)

    audio = decode(wav(interleaved(values), tag=3, bits=8 * values.itemsize), LIMITS)

    assert np.array_equal(audio.samples, values.astype(np.float32))


def test_a_float64_beyond_float32_is_not_finite() -> None:
    with pytest.raises(NonFiniteSamples):
        decode(wav(struct.pack("<3d", 0.0, 1e39, 0.0), tag=3, bits=64), LIMITS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 2**20 + 1, 2**20 + 99])
def test_one_sample_that_is_not_finite_is_refused(value: float, place: int) -> None:
    samples = np.zeros(2**20 + 100, "<f4")
    samples[place] = value

    with pytest.raises(NonFiniteSamples):
        decode(wav(samples.tobytes(), tag=3, bits=32), LIMITS)


def a_law(byte: int) -> int:
    """ITU-T G.711's A-law, expanded to 16 bits, from the Recommendation's table 1a."""
    byte ^= 0x55
    exponent, mantissa = byte >> 4 & 7, byte & 0xF
    magnitude = (mantissa << 4) + 8 if exponent == 0 else ((mantissa << 4) + 0x108) << exponent - 1
    return magnitude if byte & 0x80 else -magnitude


def mu_law(byte: int) -> int:
    """ITU-T G.711's mu-law, expanded to 16 bits, from table 2a."""
    byte = ~byte & 0xFF
    magnitude = (((byte & 0xF) << 3) + 0x84 << (byte >> 4 & 7)) - 0x84
    return -magnitude if byte & 0x80 else magnitude


@pytest.mark.parametrize(("tag", "codec", "expand"), [(6, "pcm_alaw", a_law), (7, "pcm_mulaw", mu_law)])
def test_telephony_laws_expand_as_the_recommendation_says(tag: int, codec: str, expand: Any) -> None:
    every = bytes(range(256))

    audio = decode(wav(every, tag=tag, bits=8, rate_hz=8_000), LIMITS)

    assert audio.codec == codec
    assert (audio.samples[0] * 32_768).tolist() == [expand(byte) for byte in every]


@pytest.mark.parametrize(
    ("container", "subtype", "name"),
    [
        ("AIFF", "PCM_S8", "aiff"), ("AIFF", "PCM_16", "aiff"), ("AIFF", "PCM_24", "aiff"),
        ("AIFF", "PCM_32", "aiff"), ("AIFF", "FLOAT", "aiff"), ("AIFF", "ALAW", "aiff"),
        ("AU", "PCM_16", "au"), ("AU", "PCM_24", "au"), ("AU", "DOUBLE", "au"), ("AU", "ALAW", "au"),
        ("CAF", "PCM_24", "caf"), ("CAF", "FLOAT", "caf"), ("CAF", "ULAW", "caf"),
        ("W64", "PCM_16", "w64"), ("W64", "DOUBLE", "w64"), ("RF64", "PCM_24", "rf64"),
        ("WAVEX", "PCM_U8", "wav"), ("WAVEX", "FLOAT", "wav"), ("WAVEX", "ALAW", "wav"),
    ],
)  # fmt: skip
def test_the_uncompressed_containers(container: str, subtype: str, name: str) -> None:
    source = cough_like(0.2, 16_000, channels=2)
    target = io.BytesIO()
    soundfile.write(target, source.T, 16_000, format=container, subtype=subtype)

    audio = decode(target.getvalue(), LIMITS)

    assert (audio.container, audio.decoder, audio.rate_hz) == (name, "soundfile", 16_000)
    resolution = {"PCM_S8": 2**-7, "PCM_U8": 2**-7, "ALAW": 2**-5, "ULAW": 2**-5}.get(subtype, 2**-15)
    assert np.abs(audio.samples - source).max() <= resolution


@pytest.mark.parametrize("endian", ["LITTLE", "BIG"])
def test_the_byte_order_is_the_headers(endian: str) -> None:
    values = integers(16)
    for container in ("WAV", "AIFF", "CAF"):
        target = io.BytesIO()
        soundfile.write(target, values.T.astype(np.int16), 8_000, format=container, subtype="PCM_16", endian=endian)
        assert np.array_equal(decode(target.getvalue(), LIMITS).samples, values / np.float32(32_768))


@pytest.mark.parametrize(
    ("codec", "container"),
    [
        ("pcm_u8", "matroska"), ("pcm_s16le", "matroska"), ("pcm_s16be", "mov"), ("pcm_s24le", "matroska"),
        ("pcm_s24be", "mov"), ("pcm_s32le", "matroska"), ("pcm_s32be", "mov"), ("pcm_f32le", "matroska"),
        ("pcm_f64le", "matroska"), ("pcm_f32be", "mov"), ("pcm_f64be", "mov"), ("pcm_alaw", "mov"),
        ("pcm_mulaw", "mov"), ("pcm_s8", "mov"),
    ],
)  # fmt: skip
def test_uncompressed_audio_is_the_same_through_either_decoder(codec: str, container: str) -> None:
    """Both of the table's decoders read PCM, each in its own containers: it must not matter which."""
    source = cough_like(0.2, 16_000, channels=2)

    plain = {"pcm_s8": "aiff", "pcm_u8": "wav"}.get(codec, "caf")

    film = decode(encoded(source, 16_000, container, codec), LIMITS)
    sound = decode(encoded(source, 16_000, plain, codec), LIMITS)

    assert (film.decoder, sound.decoder) == ("pyav", "soundfile")
    assert film.codec == sound.codec
    assert np.array_equal(film.samples, sound.samples)


@pytest.mark.parametrize(
    ("container", "codec", "name", "rate_hz"),
    [
        ("mp2", "mp2", "mp2", 16_000),
        ("mp4", "ac3", "ac3", 48_000),
        ("matroska", "libmp3lame", "mp3", 16_000),
        ("matroska", "aac", "aac", 16_000),
        ("matroska", "flac", "flac", 16_000),
        ("ogg", "flac", "flac", 16_000),
        ("mp4", "flac", "flac", 16_000),
        ("mp4", "libopus", "opus", 48_000),
        ("wav", "libmp3lame", "mp3", 16_000),
        ("wav", "g722", "adpcm_g722", 16_000),
        ("mov", "adpcm_ima_qt", "adpcm_ima_qt", 16_000),
        ("asf", "wmav1", "wmav1", 44_100),
    ],
)
def test_codecs_that_the_pack_does_not_hold(container: str, codec: str, name: str, rate_hz: int) -> None:
    source = cough_like(1.0, rate_hz)

    audio = decode(encoded(source, rate_hz, container, codec), LIMITS)

    assert (audio.codec, audio.decoder, audio.rate_hz, audio.channels) == (name, "pyav", rate_hz, 1)
    assert audio.duration_s == pytest.approx(1.0, abs=0.2)
    spectrum = np.abs(np.fft.rfft(audio.samples[0]))
    around = np.fft.rfftfreq(audio.samples.shape[1], 1 / rate_hz)
    hum = spectrum[(around > 430) & (around < 450)].max()
    assert hum > 3 * np.median(spectrum[(around > 500) & (around < 2_000)])


def test_wide_band_amr() -> None:
    """No encoder at hand: 50 frames that say "no data", which decode to a second at 16 kHz."""
    audio = decode(b"#!AMR-WB\n" + b"\x7c" * 50, LIMITS)

    assert (audio.container, audio.codec, audio.rate_hz, audio.duration_s) == ("amr", "amr_wb", 16_000, 1.0)


def test_a_codec_outside_the_table_is_refused() -> None:
    data = encoded(cough_like(0.5, 16_000), 16_000, "matroska", "tta")

    with pytest.raises(CodecUnsupportedByProfile, match="tta"):
        decode(data, LIMITS)


def test_an_unknown_wav_tag_is_refused() -> None:
    with pytest.raises((CodecUnsupportedByProfile, CorruptAudio)):
        decode(wav(bytes(1_000), tag=0x1234), LIMITS)


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_scaling_of_signed_integers(width: int) -> None:
    top = 2 ** (8 * width - 1)
    values = np.array([-top, 0, top // 2], dtype=f"i{width}")

    assert full_scale(values).tolist() == [-1.0, 0.0, 0.5]


def test_scaling_centres_unsigned_bytes() -> None:
    assert full_scale(np.array([0, 128, 192, 255], np.uint8)).tolist() == [-1.0, 0.0, 0.5, 127 / 128]
