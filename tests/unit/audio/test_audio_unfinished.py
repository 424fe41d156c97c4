"""Headers of recorders that were killed: the sound that is there, in every container, for every length they leave."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Final

import numpy as np
import pytest
import soundfile

from tests.support.encoding import encoded, interleaved, wav
from tests.support.recordings import cough_like
from tussis.shared.dsp.profiles import Decoder
from tussis.shared.errors import NoSamples
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.sniff import sniff
from tussis.worker.audio.unfinished import finished

LIMITS: Final = Limits()
VOICE: Final = cough_like(0.5, 16_000, channels=2)
INTEGERS: Final = np.round(VOICE * 32_767).astype("<i2")
EXACT: Final = INTEGERS / np.float32(32_768)


def written(container: str, subtype: str = "PCM_16", endian: str = "FILE") -> bytes:
    target = io.BytesIO()
    source = VOICE.T if subtype != "PCM_16" else INTEGERS.T
    soundfile.write(target, source, 16_000, format=container, subtype=subtype, endian=endian)
    return target.getvalue()


def put(data: bytes, *patches: tuple[int, bytes]) -> bytes:
    mutable = bytearray(data)
    for at, content in patches:
        mutable[at : at + len(content)] = content
    return bytes(mutable)


def numbers(kind: str, *values: int) -> list[bytes]:
    return [struct.pack(kind, value) for value in values]


def unfinished() -> Iterator[tuple[str, bytes]]:
    """Every container with lengths as killed recorders leave them."""
    plain = written("WAV")
    size = plain.index(b"data") + 4
    for whole in numbers("<I", 0, 36, 2**32 - 1):
        for length in numbers("<I", 0, 2**31 - 1, 2**32 - 1, 2**32 - 2):
            yield f"WAV, RIFF {whole.hex()}, data {length.hex()}", put(plain, (4, whole), (size, length))
    filler = b"FLLR" + struct.pack("<I", 4_008) + bytes(4_008)
    yield "WAV, Apple's filler", plain[:36] + filler + put(plain, (size, bytes(4)))[36:]
    yield "WAV, silence first", put(plain, (size, bytes(4)))[: size + 4] + bytes(4_000) + plain[size + 4 :]
    big = written("WAV", endian="BIG")
    yield "RIFX", put(big, (big.index(b"data") + 4, bytes(4)))
    rf64 = written("RF64")
    table = rf64.index(b"ds64") + 8
    for length in numbers("<Q", 0, 2**40, 2**64 - 1):
        yield f"RF64, {length.hex()}", put(rf64, (table, length + length + length))
    yield "RF64, its own size 0", put(rf64, (table + 8, bytes(8)), (rf64.index(b"data") + 4, bytes(4)))
    yield "BW64, whole", put(rf64, (0, b"BW64"))
    yield "BW64, 0", put(rf64, (0, b"BW64"), (table + 8, bytes(8)))
    w64 = written("W64")
    size = w64.index(b"data") + 16
    for length in numbers("<Q", 0, 24, 2**40, 2**64 - 1):
        yield f"W64, {length.hex()}", put(w64, (16, length), (size, length))
    aiff = written("AIFF")
    sound, frames = aiff.index(b"SSND") + 4, aiff.index(b"COMM") + 10
    for length in numbers(">I", 0, 8, 2**32 - 1):
        yield f"AIFF, {length.hex()}", put(aiff, (sound, length))
        yield f"AIFF, {length.hex()}, no frames", put(aiff, (4, bytes(4)), (sound, length), (frames, bytes(4)))
    yield "AIFF, no frames", put(aiff, (frames, bytes(4)))
    au = written("AU")
    for length in numbers(">I", 0, 2**31 - 1, 2**32 - 1):
        yield f"AU, {length.hex()}", put(au, (8, length))
    caf = written("CAF")
    size = caf.index(b"data") + 4
    for length in numbers(">Q", 0, 4, 2**40, 2**64 - 1):
        yield f"CAF, {length.hex()}", put(caf, (size, length))


CASES: Final = dict(unfinished())


@pytest.mark.parametrize("name", CASES)
def test_the_sound_that_is_there(name: str) -> None:
    native = decode(CASES[name], LIMITS)
    pydub = decode(CASES[name], LIMITS, Decoder.PYDUB)

    expected = np.pad(EXACT, ((0, 0), (1_000, 0))) if name == "WAV, silence first" else EXACT
    assert np.array_equal(native.samples, expected)
    assert (native.decoder, native.rate_hz) == ("soundfile", 16_000)
    if name == "RIFX":
        return  # pydub takes its bytes in the wrong order, with a length or without
    # Its mean of two integers is floored.
    assert np.abs(pydub.samples[0] - expected.mean(axis=0)).max() < 1 / 32_768


@pytest.mark.parametrize("container", ["WAV", "RF64", "AIFF", "AU", "CAF", "W64"])
def test_a_file_that_ends_inside_a_sample_as_well(container: str) -> None:
    data = written(container)
    cut = data[: len(data) - 3]
    at = {"WAV": (b"data", 4, "<I"), "RF64": (b"ds64", 16, "<Q"), "AIFF": (b"SSND", 4, ">I"), "CAF": (b"data", 4, ">Q"),
          "W64": (b"data", 16, "<Q"), "AU": (b".snd", 8, ">I")}[container]  # fmt: skip

    audio = decode(put(cut, (cut.index(at[0]) + at[1], struct.pack(at[2], 0))), LIMITS)

    assert np.array_equal(audio.samples, EXACT[:, :-1])


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "FLOAT", "DOUBLE", "ULAW"])
def test_every_width(subtype: str) -> None:
    data = written("WAV", subtype)
    size = data.index(b"data") + 4
    whole = decode(data, LIMITS).samples

    assert np.array_equal(decode(put(data, (size, bytes(4))), LIMITS).samples[:, : whole.shape[1]], whole)


@pytest.mark.parametrize(
    "behind",
    [b"", b"LIST\x04\0\0\0INFO", b"LIST\x05\0\0\0INFOx\0cue \x04\0\0\0\0\0\0\0", b"\0"],
    ids=["nothing", "a list", "two chunks", "padding"],
)
def test_an_empty_recording_stays_empty(behind: bytes) -> None:
    for decoder in Decoder:
        with pytest.raises(NoSamples):
            decode(wav(b"") + behind, LIMITS, decoder)


def test_a_whole_file_is_left_as_it_is() -> None:
    for container in ("WAV", "RF64", "W64", "AIFF", "AU", "CAF"):
        data = written(container)
        assert finished(data, sniff(data).container, 0) is data


@pytest.mark.parametrize("length", numbers("<I", 0, 2**32 - 1))
@pytest.mark.parametrize("codec", ["adpcm_ima_wav", "libmp3lame"])
def test_ffmpeg_does_the_same_for_its_codecs(codec: str, length: bytes) -> None:
    data = encoded(VOICE, 16_000, "wav", codec)
    cut = put(data, (data.index(b"data") + 4, length))

    assert decode(cut, LIMITS).duration_s == pytest.approx(0.5, abs=0.2)


def test_the_header_behind_a_tag() -> None:
    data = wav(interleaved(INTEGERS), channels=2)
    tag = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)

    audio = decode(tag + put(data, (40, bytes(4))), LIMITS)

    assert np.array_equal(audio.samples, EXACT)
