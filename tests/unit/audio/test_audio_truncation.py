"""Files that ended early are told from whole ones, in every container that states its length."""

from __future__ import annotations

import io
import struct
import time
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from tests.support.encoding import encoded
from tests.support.pack import Entry, listed
from tests.support.recordings import cough_like
from tussis.shared.dsp.profiles import Decoder
from tussis.shared.errors import AudioError
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.sniff import Container
from tussis.worker.audio.truncation import is_truncated

LIMITS: Final = Limits()
VOICE: Final = cough_like(1.0, 16_000, channels=2)
UNCOMPRESSED: Final = [
    ("WAV", "FILE"),
    ("WAV", "BIG"),
    ("RF64", "FILE"),
    ("W64", "FILE"),
    ("AIFF", "FILE"),
    ("AU", "FILE"),
    ("CAF", "FILE"),
]
CUTS: Final = (0.35, 0.613, 0.8, 0.973)
#: Cut between two frames, these look whole. This MP3 file has no Xing header.
UNTOLD: Final = ("mp3_cbr64_mono_48k_noxing.mp3", "raw_gsm_8k.gsm", "wma_v2_44k.wma")


def written(container: str, endian: str) -> bytes:
    target = io.BytesIO()
    soundfile.write(target, VOICE.T, 16_000, format=container, subtype="PCM_16", endian=endian)
    return target.getvalue()


def incomplete(data: bytes, decoder: Decoder = Decoder.NATIVE) -> bool:
    return decode(data, LIMITS, decoder).incomplete


@pytest.mark.parametrize(("container", "endian"), UNCOMPRESSED)
@pytest.mark.parametrize("missing", [1, 2_000])
def test_uncompressed_audio_that_ended_early(container: str, endian: str, missing: int) -> None:
    whole = written(container, endian)

    assert not incomplete(whole)
    assert not incomplete(whole + bytes(1_000))
    assert incomplete(whole[:-missing])


@pytest.mark.parametrize("length", [0, 2**31 - 1 - 36, 2**31, 2**32 - 1])
def test_a_placeholder_states_no_length(length: int) -> None:
    whole = written("WAV", "FILE")
    at = whole.index(b"data") + 4

    assert not incomplete(whole[:at] + struct.pack("<I", length) + whole[at + 4 :])


@pytest.mark.parametrize("entry", listed("formats/"))
def test_the_whole_recordings_of_the_pack(entry: Entry, pack: Path) -> None:
    assert not incomplete((pack / entry.path).read_bytes())


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("entry", listed("formats/"))
def test_the_cut_recordings_of_the_pack(entry: Entry, cut: float, pack: Path) -> None:
    data = (pack / entry.path).read_bytes()
    try:
        found = incomplete(data[: int(len(data) * cut)])
    except AudioError:
        return  # its index was at the end
    assert found or entry.name in UNTOLD


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("flac_corrupt_middle.flac", True),
        ("flac_truncated.flac", True),
        ("mp3_truncated.mp3", True),
        ("ogg_truncated.ogg", True),
        ("wav_truncated_data.wav", True),
        ("webm_truncated.webm", True),
        ("mp3_huge_id3.mp3", False),
        ("mp3_rate_change.mp3", False),
        ("ogg_chained.ogg", False),
        ("wav_claims_4gb.wav", False),
        ("wav_extra_chunks.wav", False),
        ("wav_trailing_garbage.wav", False),
    ],
)
def test_damaged_recordings_of_the_pack(name: str, expected: bool, pack: Path) -> None:
    assert incomplete((pack / "adversarial" / name).read_bytes()) == expected


def test_a_flac_file_that_lost_whole_frames_states_more_samples() -> None:
    whole = encoded(VOICE, 16_000, "flac", "flac")
    stated = int.from_bytes(whole[18:26], "big") + 1  # the last 36 bits are the samples of a channel

    assert not incomplete(whole)
    assert incomplete(whole[:18] + stated.to_bytes(8, "big") + whole[26:])


def test_the_legacy_decoder_tells_it_too() -> None:
    whole = encoded(cough_like(5.0, 16_000), 16_000, "ogg", "libopus")

    assert not incomplete(whole, Decoder.PYDUB)
    assert incomplete(whole[: len(whole) // 2], Decoder.PYDUB)


@given(
    container=st.sampled_from(Container),
    data=st.binary(max_size=200),
    start=st.sampled_from(
        [b"", b"RIFF\0\0\0\0WAVEdata", b"OggS", b"\x1a\x45\xdf\xa3", b"\xff\xfb\x90\0Info", b"caff\0\1\0\0"]
    ),
)
def test_no_bytes_raise_an_error(container: Container, data: bytes, start: bytes) -> None:
    assert is_truncated(start + data, container, 0) in (True, False)


@pytest.mark.parametrize(
    ("container", "part"), [(Container.MATROSKA, b"\xec\x80"), (Container.MP4, struct.pack(">I4s", 8, b"free"))]
)
def test_millions_of_empty_parts_take_bounded_time(container: Container, part: bytes) -> None:
    data = part * (32_000_000 // len(part))
    began = time.process_time()

    assert not is_truncated(data, container, 0)
    assert time.process_time() - began < 10


def test_random_cuts_of_a_browsers_recording(pack: Path) -> None:
    data = (pack / "formats" / "webm_opus_mediarecorder.webm").read_bytes()
    cuts = np.random.default_rng(0).integers(2_000, len(data), 300)

    found = [is_truncated(data[:cut], Container.MATROSKA, 0) for cut in cuts]

    assert sum(found) >= 0.95 * len(cuts)
