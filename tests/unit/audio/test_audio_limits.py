"""The limits: each alone, and before memory is taken."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import soundfile

from tests.support.encoding import encoded, wav
from tests.support.processes import ROOT
from tests.support.recordings import cough_like
from tussis.shared.errors import (
    CorruptAudio,
    EmptyObject,
    NoSamples,
    ObjectTooLarge,
    TooLong,
    TooManyChannels,
    TussisError,
    UnsupportedRate,
)
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits

LIMITS: Final = Limits()


def refused(data: bytes, limits: Limits, error: type[TussisError]) -> str:
    with pytest.raises(error) as refusal:
        decode(data, limits)
    assert type(refusal.value) is error
    return str(refusal.value)


def flac(frames: int, rate_hz: int = 8_000, channels: int = 1) -> bytes:
    target = io.BytesIO()
    soundfile.write(target, np.zeros((frames, channels), np.int16), rate_hz, format="FLAC", subtype="PCM_16")
    return target.getvalue()


def without_length(data: bytes) -> bytes:
    """The FLAC file as an encoder writes it to a pipe: STREAMINFO's number of samples is 0, for unknown."""
    (packed,) = struct.unpack_from(">Q", data, 18)
    return data[:18] + struct.pack(">Q", packed >> 36 << 36) + data[26:]


def test_bytes() -> None:
    data = wav(bytes(1_000))

    decode(data, Limits(max_bytes=len(data)))
    assert str(len(data)) in refused(data, Limits(max_bytes=len(data) - 1), ObjectTooLarge)
    refused(b"", LIMITS, EmptyObject)


def test_rate() -> None:
    decode(wav(bytes(1_000), rate_hz=4_000), LIMITS)
    decode(wav(bytes(1_000), rate_hz=192_000), LIMITS)
    assert "TUSSIS_MAX_RATE_HZ=192000" in refused(wav(bytes(1_000), rate_hz=384_000), LIMITS, UnsupportedRate)
    for ultrasound in (250_000, 384_000):
        assert decode(wav(bytes(1_000), rate_hz=ultrasound), Limits(max_rate_hz=384_000)).rate_hz == ultrasound
    assert "3999 Hz" in refused(wav(bytes(1_000), rate_hz=3_999), LIMITS, UnsupportedRate)
    refused(wav(bytes(1_000), rate_hz=192_001), LIMITS, UnsupportedRate)
    refused(wav(bytes(1_000), rate_hz=0), LIMITS, CorruptAudio)


@pytest.mark.parametrize("rate_hz", [5_512, 22_254, 44_056, 44_101, 191_999])
def test_odd_rates_within_the_limits_are_kept(rate_hz: int) -> None:
    assert decode(wav(bytes(1_000), rate_hz=rate_hz), LIMITS).rate_hz == rate_hz


def test_channels() -> None:
    assert decode(wav(bytes(1_600), channels=8), LIMITS).channels == 8
    refused(wav(bytes(1_800), channels=9), LIMITS, TooManyChannels)
    refused(wav(bytes(1_000), channels=0), LIMITS, CorruptAudio)


def test_duration_of_uncompressed_audio() -> None:
    limits = Limits(max_duration_s=1.0)

    assert decode(wav(bytes(32_000)), limits).duration_s == 1.0
    refused(wav(bytes(32_002)), limits, TooLong)


def test_duration_that_a_header_promises_is_refused_before_decoding() -> None:
    """The frames are garbage, so that decoding would give no samples."""
    data = flac(80_000)
    header_only = data[:200] + b"garbage" * 10

    refused(header_only, Limits(max_duration_s=9.0), TooLong)


@pytest.mark.parametrize("container", ["ogg", "webm", "mp4"])
def test_duration_is_found_while_decoding(container: str) -> None:
    data = encoded(cough_like(3.0, 48_000), 48_000, container, "libopus")

    refused(data, Limits(max_duration_s=2.0), TooLong)
    decode(data, Limits(max_duration_s=4.0))


def test_a_header_that_does_not_say_its_length_is_cut_off_too() -> None:
    data = without_length(flac(80_000))

    assert decode(data, LIMITS).duration_s == 10.0
    refused(data, Limits(max_duration_s=9.9), TooLong)


def test_memory_of_the_decoded_samples() -> None:
    data = without_length(flac(100_000, 48_000, channels=8))
    size = 100_000 * 8 * 4

    decode(data, Limits(max_decoded_bytes=size))
    assert "8 channels" in refused(data, Limits(max_decoded_bytes=size - 1), TooLong)
    refused(wav(bytes(2_000)), Limits(max_decoded_bytes=1_000 * 4 - 1), TooLong)


def test_a_stream_cannot_change_its_layout_at_will() -> None:
    """Each change costs a resampler, so the number is bounded: a one-second limit could not stop this one."""
    slow, fast = (encoded(cough_like(0.3, rate), rate, "mp3", "libmp3lame") for rate in (16_000, 24_000))

    assert decode((slow + fast) * 2, LIMITS).rate_hz == 16_000
    refused((slow + fast) * 30, LIMITS, CorruptAudio)


def test_no_samples() -> None:
    refused(wav(b""), LIMITS, NoSamples)
    refused(wav(b"\x01"), LIMITS, NoSamples)
    refused(flac(100)[:42], LIMITS, NoSamples)


#: Decodes one file and tells the growth of the process's largest memory.
MEASURE: Final = """
import json, sys
from pathlib import Path
from tests.support.memory import peak_bytes
from tussis.shared.errors import AudioError
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits

limits = Limits(max_duration_s=float(sys.argv[1]))
decode(Path(sys.argv[2]).read_bytes(), limits)
answers = []
for path in sys.argv[3:]:
    data = Path(path).read_bytes()
    before = peak_bytes()
    try:
        outcome = decode(data, limits).duration_s
    except AudioError as error:
        outcome = error.error_class
    answers.append([outcome, peak_bytes() - before])
print(json.dumps(answers))
"""


def growth(folder: Path, max_duration_s: float, *files: bytes) -> list[tuple[float | str, int]]:
    """For each file, decoded in one fresh process: its seconds or error class, and bytes of new peak memory."""
    warm_up = folder / "warm-up"
    warm_up.write_bytes(encoded(cough_like(2.0, 48_000), 48_000, "mp4", "aac"))
    paths = []
    for number, data in enumerate(files):
        paths.append(folder / str(number))
        paths[-1].write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(max_duration_s), warm_up, *paths],
        capture_output=True, text=True, check=True, timeout=120, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return [(outcome, size) for outcome, size in json.loads(done.stdout)]


MIB: Final = 2**20


def test_a_header_that_claims_four_gigabytes_reserves_nothing(pack: Path, tmp_path: Path) -> None:
    ((outcome, size),) = growth(tmp_path, 3_600, (pack / "adversarial/wav_claims_4gb.wav").read_bytes())

    assert outcome == 1.0
    assert size < 8 * MIB


def test_two_hours_in_a_small_file_cost_no_memory(pack: Path, tmp_path: Path) -> None:
    """Once refused by its header; once with the length left out, where decoding stops at ten minutes."""
    data = (pack / "adversarial/silence_2h_8k.flac").read_bytes()

    (stated, unstated) = growth(tmp_path, 600, data, without_length(data))

    assert stated[0] == unstated[0] == "too_long"
    assert stated[1] < 4 * MIB
    assert unstated[1] < 2 * 600 * 8_000 * 4 + 8 * MIB


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def test_an_mp4_index_cannot_be_larger_than_its_file(pack: Path, tmp_path: Path) -> None:
    """Both files took 0.7 to 1.1 GB before they were looked at."""
    fragmented = bytearray((pack / "formats/mp4_aac_fragmented.mp4").read_bytes())
    run = fragmented.index(b"trun")
    fragmented[run + 4 : run + 12] = struct.pack(">II", 1, 30_000_000)
    listed = bytearray((pack / "formats/m4a_aac_faststart.m4a").read_bytes())
    sizes = listed.index(b"stsz")
    listed[sizes + 8 : sizes + 16] = struct.pack(">II", 2**31 - 1, 60_000_000)

    for outcome, size in growth(tmp_path, 3_600, bytes(fragmented), bytes(listed)):
        assert outcome == "corrupt"
        assert size < 8 * MIB


@pytest.mark.parametrize("behind_run", [-60, -5, 30, 100, 500])
def test_a_cut_fragment_is_no_reason_to_refuse_the_others(pack: Path, behind_run: int) -> None:
    whole = (pack / "formats/mp4_aac_fragmented.mp4").read_bytes()
    cut = whole[: whole.rindex(b"trun") + behind_run]

    audio = decode(cut, LIMITS)

    all_of_it = decode(whole, LIMITS)
    assert 0.9 * all_of_it.duration_s < audio.duration_s < all_of_it.duration_s
    length = audio.samples.shape[1] - 2_048
    assert np.array_equal(audio.samples[:, :length], all_of_it.samples[:, :length])


def test_a_compressed_quicktime_header_is_refused() -> None:
    data = box(b"ftyp", b"qt  \0\0\0\0qt  ") + box(b"moov", box(b"cmov", bytes(64)))

    assert "compressed" in refused(data, LIMITS, CorruptAudio)


def test_boxes_without_end_are_refused() -> None:
    refused(box(b"ftyp", b"M4A \0\0\0\0") + box(b"free", b"") * (2**20 + 1), LIMITS, CorruptAudio)
