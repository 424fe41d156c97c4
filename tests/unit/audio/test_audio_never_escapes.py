"""No bytes make anything escape but an ``AudioError``: small good files, mutated."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Final

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.encoding import encoded, interleaved, wav
from tests.support.recordings import cough_like
from tests.support.waiting import PATIENCE
from tussis.shared.dsp.profiles import Decoder
from tussis.shared.errors import AudioError
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits

#: Low, so that no example takes long; the time of one is bounded by the deadline.
LIMITS: Final = Limits(max_duration_s=30.0)
DEADLINE: Final = timedelta(seconds=5 * PATIENCE)


def by_soundfile(container: str, subtype: str) -> bytes:
    target = io.BytesIO()
    soundfile.write(target, cough_like(0.1, 8_000).T, 8_000, format=container, subtype=subtype)
    return target.getvalue()


def seeds() -> dict[str, bytes]:
    voice = cough_like(0.3, 8_000)
    wide = cough_like(0.2, 48_000, channels=2)
    integers = (voice * 32_767).astype("<i2")
    return {
        "wav": wav(interleaved(integers), rate_hz=8_000),
        "wav of floats": wav(interleaved(voice), tag=3, bits=32, rate_hz=8_000),
        "wav of mu-law": by_soundfile("WAV", "ULAW"),
        "wav of IMA ADPCM": encoded(voice, 8_000, "wav", "adpcm_ima_wav"),
        "wav of MP3": encoded(voice, 8_000, "wav", "libmp3lame"),
        "rf64": by_soundfile("RF64", "PCM_16"),
        "w64": by_soundfile("W64", "PCM_24"),
        "aiff": by_soundfile("AIFF", "PCM_16"),
        "au": by_soundfile("AU", "ULAW"),
        "caf": by_soundfile("CAF", "PCM_16"),
        "caf of ALAC": encoded(voice, 8_000, "caf", "alac"),
        "flac": by_soundfile("FLAC", "PCM_16"),
        "ogg of FLAC": encoded(voice, 8_000, "ogg", "flac"),
        "ogg of Opus": encoded(wide, 48_000, "ogg", "libopus"),
        "ogg of Vorbis": by_soundfile("OGG", "VORBIS"),
        "mp3": encoded(voice, 8_000, "mp3", "libmp3lame"),
        "adts": encoded(voice, 8_000, "adts", "aac"),
        "mp4": encoded(voice, 8_000, "mp4", "aac"),
        "mov": encoded(voice, 8_000, "mov", "pcm_s16le"),
        "webm": encoded(wide, 48_000, "webm", "libopus"),
        "asf": encoded(voice, 8_000, "asf", "wmav2"),
        "amr": b"#!AMR\n" + b"\x3c" + bytes(31) + b"\x7c" * 20,
        "gsm": (b"\xd2" + bytes(32)) * 12,
    }


SEEDS: Final = seeds()

NUMBERS: Final = st.sampled_from(
    [
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\x7f",
        b"\0\0\0\1",
        b"\1\0\0\0",
        b"\x80\0\0\0",
    ]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A seed with a few bits flipped, numbers overwritten, bytes cut out, doubled or put in, or its end cut off."""
    data = bytearray(SEEDS[draw(st.sampled_from(sorted(SEEDS)))])
    for _ in range(draw(st.integers(1, 6))):
        if not data:
            break
        # Headers decide more than samples do.
        at = draw(st.integers(0, min(len(data), draw(st.sampled_from([64, 512, 2**20]))) - 1))
        match draw(st.sampled_from(["flip", "number", "cut", "put", "double", "end"])):
            case "flip":
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "number":
                data[at : at + 4] = draw(NUMBERS)
            case "cut":
                del data[at : at + draw(st.integers(1, 200))]
            case "put":
                data[at:at] = draw(st.binary(min_size=1, max_size=40))
            case "double":
                data[at:at] = data[at : at + draw(st.integers(1, 500))]
            case "end":
                del data[at:]
    return bytes(data)


def holds(data: bytes, decoder: Decoder) -> None:
    refusal: AudioError | None = None
    try:
        audio = decode(data, LIMITS, decoder)
    except AudioError as error:
        refusal = error
    if refusal is not None:
        assert "\n" not in str(refusal)
        assert len(str(refusal)) < 300
    else:
        assert audio.samples.dtype == np.float32
        assert audio.samples.ndim == 2
        assert audio.samples.size > 0
        assert np.isfinite(audio.samples).all()
        assert LIMITS.min_rate_hz <= audio.rate_hz <= LIMITS.max_rate_hz
        assert audio.duration_s <= LIMITS.max_duration_s


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_the_seeds_themselves_decode(name: str) -> None:
    assert decode(SEEDS[name], LIMITS).samples.size > 0


@settings(max_examples=1_500, deadline=DEADLINE, suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
def test_mutations(data: bytes) -> None:
    holds(data, Decoder.NATIVE)


@settings(max_examples=100, deadline=DEADLINE, suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
def test_mutations_under_the_legacy_decoder(data: bytes) -> None:
    holds(data, Decoder.PYDUB)


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_every_truncation_of_the_header_and_some_of_the_rest(name: str) -> None:
    data = SEEDS[name]
    for length in [*range(min(len(data), 200)), *range(200, len(data), 97)]:
        holds(data[:length], Decoder.NATIVE)


MAGIC: Final = st.sampled_from(
    [
        b"",
        b"RIFF\xff\xff\xff\xffWAVEfmt ",
        b"RF64\xff\xff\xff\xffWAVEds64",
        b"FORM\0\0\0\0AIFCCOMM",
        b".snd\0\0\0\x20",
        b"caff\0\1\0\0desc",
        b"fLaC\0\0\0\x22",
        b"OggS\0\2",
        b"\0\0\0\x18ftypM4A ",
        b"\0\0\0\0moov",
        b"\x1a\x45\xdf\xa3",
        b"#!AMR\n",
        b"#!AMR-WB\n",
        b"ID3\4\0\0\0\0\0\0",
        bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),
    ]
)


@settings(max_examples=500, deadline=DEADLINE)
@given(MAGIC, st.binary(max_size=600))
def test_random_bytes_behind_any_magic(magic: bytes, rest: bytes) -> None:
    holds(magic + rest, Decoder.NATIVE)
