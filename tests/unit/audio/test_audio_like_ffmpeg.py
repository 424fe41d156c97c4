"""What the ``ffmpeg`` program plays in full is decoded to the same length and level, or refused for a stated reason."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from tests.support.field_files import encoded_files, wav_files
from tests.support.pack import Entry, listed
from tussis.shared.errors import AudioError
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.samples import Audio

#: Found over 2 000 files: the largest differences that were no fault. MP3's is its decoder's delay, which the program
#: leaves out where a note of the encoder states it.
SECONDS_APART: Final = 0.06
DECIBELS_APART: Final = 0.5

#: Refused though the program plays it, and the sentence of ``docs/formats.md`` that says so.
REFUSED: Final = {
    "format-behind.wav": ("corrupt", "its format chunk comes after the audio data"),
    "two-sounds.wav": ("corrupt", "it has two audio chunks"),
    "format-cut.wav": ("corrupt", "chunk is truncated"),
    "int64.wav": ("codec_unsupported", "a codec outside the tables"),
    "not-a-number.wav": ("non_finite", "NaN or infinity among the samples"),
    "ultrasound.wav": ("unsupported_rate", "recorders of ultrasound"),
    "dolby.mp4": ("codec_unsupported", "a codec outside the tables"),
    "film.mpg": ("not_audio", "MPEG program and transport streams"),
    "film.vob": ("not_audio", "MPEG program and transport streams"),
    "film.ts": ("not_audio", "MPEG program and transport streams"),
    "film.avi": ("not_audio", "AVI"),
    "film.flv": ("not_audio", "Flash video"),
    "plain.wv": ("not_audio", "WavPack"),
    "broadcast.latm": ("not_audio", "none of the containers"),
    # The pack's.
    "all_nan_f32.wav": ("non_finite", "NaN or infinity among the samples"),
    "nan_inf_f32.wav": ("non_finite", "NaN or infinity among the samples"),
    "silence_2h_8k.flac": ("too_long", "over the limit on duration"),
    "wav_64_channels.wav": ("too_many_channels", "the number of channels is over the limit"),
    "wav_rate_1hz.wav": ("unsupported_rate", "little of a cough remains below this rate"),
}
#: Decoded to another length, and why.
SHORTER: Final = {"flac_corrupt_middle.flac": "a FLAC frame whose checksum is wrong"}

PAGE: Final = " ".join((Path(__file__).parents[3] / "docs" / "formats.md").read_text(encoding="utf-8").split())


def by_ffmpeg(path: Path) -> tuple[npt.NDArray[np.float64], int] | None:
    """The mean of the channels, and the rate; None where the program plays nothing."""
    # At most what is needed to see that a recording is longer than any limit here.
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "quiet", "-protocol_whitelist", "file", "-i", path,
               "-map", "0:a:0", "-t", "300", "-c:a", "pcm_f32le", "-f", "wav", "-"]  # fmt: skip
    played = subprocess.run(command, capture_output=True, timeout=60, check=False).stdout
    if not played:
        return None
    # Written to a pipe, so its length is open.
    samples, rate_hz = soundfile.read(io.BytesIO(played), always_2d=True)
    return (samples.mean(axis=1), rate_hz) if len(samples) else None


def level_db(samples: npt.NDArray[Any]) -> float:
    """Root mean square, in decibels below full scale."""
    return float(10 * np.log10(np.mean(samples.astype(np.float64) ** 2) + 1e-12))


def check(path: Path, name: str) -> None:
    played = by_ffmpeg(path)
    found: Audio | str
    try:
        # The pack proposes a limit of one hour.
        found = decode(path.read_bytes(), Limits(max_duration_s=3600.0))
    except AudioError as error:
        found = error.error_class
    if name in REFUSED:
        error_class, reason = REFUSED[name]
        assert found == error_class
        assert reason in PAGE
    elif played is None:
        assert isinstance(found, str), f"the program plays nothing of it, and {found} came out"
    else:
        assert isinstance(found, Audio), f"refused as {found}"
        samples, rate_hz = played
        if name in SHORTER:
            assert found.duration_s < len(samples) / rate_hz - SECONDS_APART
            assert SHORTER[name] in PAGE
        else:
            assert found.rate_hz == rate_hz
            assert found.duration_s == pytest.approx(len(samples) / rate_hz, abs=SECONDS_APART)
            assert level_db(found.samples.mean(axis=0)) == pytest.approx(level_db(samples), abs=DECIBELS_APART)


@pytest.mark.parametrize("entry", listed("formats/") + listed("adversarial/"))
def test_the_packs_files(pack: Path, entry: Entry) -> None:
    check(pack / entry.path, entry.name)


@pytest.mark.parametrize(
    "files", [lambda folder: wav_files(), encoded_files], ids=["odd WAV files", "compressed files"]
)
def test_files_from_the_field(tmp_path: Path, files: Callable[[Path], Any]) -> None:
    for name, data in files(tmp_path):
        path = tmp_path / f"as-sent-{name}"
        path.write_bytes(data)
        try:
            check(path, name)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
