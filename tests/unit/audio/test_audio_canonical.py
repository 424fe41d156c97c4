"""libsndfile reads one format only: the one that was examined. It never runs a codec that a file hides from that."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import soundfile

from tussis.shared.errors import AudioError, CorruptAudio
from tussis.worker.audio.canonical import canonical
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.sniff import Container
from tussis.worker.audio.table import SOUNDFILE_SUBTYPES

PCM = struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16)
#: MS ADPCM with its coefficients, IMA ADPCM, GSM 6.10, MP3.
HIDDEN = {
    "MS_ADPCM": struct.pack("<HHIIHH", 2, 1, 16_000, 8_110, 256, 4)
    + struct.pack("<HHH14h", 32, 500, 7, 256, 0, 512, -256, 0, 0, 192, 64, 240, 0, 460, -208, 392, -232),
    "IMA_ADPCM": struct.pack("<HHIIHHHH", 0x11, 1, 16_000, 8_110, 256, 4, 2, 505),
    "GSM610": struct.pack("<HHIIHHHH", 0x31, 1, 8_000, 1_625, 65, 0, 2, 320),
}
SOUND = (np.sin(np.arange(8_000) / 20) * 8_000).astype("<i2").tobytes()


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content


def riff(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def attack(hidden: bytes) -> bytes:
    """libsndfile reads 36 bytes of an empty ``smpl``: the first format and twelve zeros. Then it sees the second."""
    return riff(chunk(b"smpl", b""), chunk(b"fmt ", PCM), bytes(12), chunk(b"fmt ", hidden), chunk(b"data", SOUND))


@pytest.fixture
def subtypes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The subtypes of the files that libsndfile opens."""
    seen: list[str] = []

    class Watched(soundfile.SoundFile):  # type: ignore[misc]
        def __init__(self, file: Any) -> None:
            super().__init__(file)
            seen.append(self.subtype)

    monkeypatch.setattr("tussis.worker.audio.soundfile_decoder.soundfile.SoundFile", Watched)
    return seen


@pytest.mark.parametrize("name", HIDDEN)
def test_a_hidden_format_is_not_read(name: str, subtypes: list[str]) -> None:
    with soundfile.SoundFile(io.BytesIO(attack(HIDDEN[name]))) as file:
        assert file.subtype == name  # what libsndfile would do with the file itself
    subtypes.clear()
    with suppress(AudioError):
        decode(attack(HIDDEN[name]), Limits())
    assert set(subtypes) <= set(SOUNDFILE_SUBTYPES)


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("gap", range(0, 60, 3))
@pytest.mark.parametrize("first", [b"smpl", b"inst", b"bext", b"LIST", b"cue ", b"PEAK", b"\0\0\0\0", b"fact"])
def test_wherever_it_is_hidden(name: str, gap: int, first: bytes, subtypes: list[str]) -> None:
    for order in ((chunk(b"fmt ", PCM), chunk(first, b"")), (chunk(first, b""), chunk(b"fmt ", PCM))):
        with suppress(AudioError):
            decode(riff(*order, bytes(gap), chunk(b"fmt ", HIDDEN[name]), chunk(b"data", SOUND)), Limits())
    assert set(subtypes) <= set(SOUNDFILE_SUBTYPES)


def written(kind: str, subtype: str, channels: int) -> bytes:
    file = io.BytesIO()
    samples = np.random.default_rng(1).uniform(-0.9, 0.9, (4_001, channels)).astype(np.float32)
    soundfile.write(file, samples, 22_050, format=kind, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(
    ("kind", "container"),
    [
        ("WAV", Container.WAV), ("WAVEX", Container.WAV), ("RF64", Container.RF64), ("W64", Container.W64),
        ("AIFF", Container.AIFF), ("AU", Container.AU), ("CAF", Container.CAF),
    ],
)  # fmt: skip
def test_the_samples_are_those_of_the_file(kind: str, container: Container, channels: int) -> None:
    for subtype in sorted(set(SOUNDFILE_SUBTYPES) & set(soundfile.available_subtypes(kind))):
        data = written(kind, subtype, channels)
        expected, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
        made, made_rate = soundfile.read(
            io.BytesIO(b"".join(canonical(data, container, 0))), dtype="float32", always_2d=True
        )
        assert np.array_equal(made, expected), subtype
        assert made_rate == rate


@pytest.mark.parametrize(
    "data",
    [
        riff(chunk(b"data", SOUND), chunk(b"fmt ", PCM)),
        riff(chunk(b"fmt ", PCM), chunk(b"data", SOUND), chunk(b"data", SOUND)),
        riff(chunk(b"fmt ", PCM)),
    ],
    ids=["before its format", "two chunks", "no chunk"],
)
def test_what_readers_disagree_about_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptAudio):
        decode(data, Limits())


def test_an_odd_chunk_without_its_padding_hides_no_sound() -> None:
    """Some recorders write it. libsndfile finds the samples as well."""
    data = riff(chunk(b"fmt ", PCM), b"note" + struct.pack("<I", 3) + b"abc", chunk(b"data", SOUND))
    assert decode(data, Limits()).samples.shape == (1, 8_000)


def test_nothing_but_format_and_samples_is_passed_on() -> None:
    data = riff(chunk(b"bext", b"x" * 700), chunk(b"fmt ", PCM), chunk(b"LIST", b"INFO"), chunk(b"data", SOUND))
    assert b"".join(canonical(data, Container.WAV, 0)) == riff(chunk(b"fmt ", PCM), chunk(b"data", SOUND))
