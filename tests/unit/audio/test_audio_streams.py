"""Several audio streams in one file: which is decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pytest

from tests.support.encoding import muxed
from tests.support.recordings import cough_like
from tussis.shared.dsp.profiles import Decoder
from tussis.shared.errors import AudioError, CodecUnsupportedByProfile, TooManyChannels
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.samples import Audio

LIMITS: Final = Limits()
RATE_HZ: Final = 48_000
VOICE: Final = cough_like(1.0, RATE_HZ)
SILENCE: Final = np.zeros((1, RATE_HZ), np.float32)


def sounds_like_the_voice(audio: Audio) -> bool:
    loudest = float(np.abs(audio.samples).max())
    return loudest > 0.5 * float(np.abs(VOICE).max()) and audio.duration_s == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("suffix", "codec"), [("m4a", "aac"), ("mov", "pcm_s16le"), ("mkv", "libopus"), ("mkv", "flac")]
)
@pytest.mark.parametrize("order", [(SILENCE, VOICE), (VOICE, SILENCE), (SILENCE, SILENCE, VOICE)])
def test_a_silent_track_yields_to_one_that_sounds(
    tmp_path: Path, suffix: str, codec: str, order: tuple[npt.NDArray[np.float32], ...]
) -> None:
    data = muxed(tmp_path / f"screen.{suffix}", RATE_HZ, *((samples, codec) for samples in order))

    assert sounds_like_the_voice(decode(data, LIMITS))


def test_a_silent_track_of_more_channels_and_another_codec_yields_too(tmp_path: Path) -> None:
    data = muxed(tmp_path / "screen.mkv", RATE_HZ, (np.repeat(SILENCE, 2, axis=0), "aac"), (VOICE, "libopus"))

    audio = decode(data, LIMITS)

    assert (audio.codec, audio.channels) == ("opus", 1)
    assert sounds_like_the_voice(audio)


def test_one_step_of_noise_is_silence_and_a_quiet_voice_is_not(tmp_path: Path) -> None:
    step = np.where(np.arange(RATE_HZ) % 2, 1, -1)[np.newaxis].astype(np.float32) * np.float32(2**-15)
    quiet = VOICE * np.float32(1e-3)

    yields = decode(muxed(tmp_path / "one.mov", RATE_HZ, (step, "pcm_s16le"), (VOICE, "pcm_s16le")), LIMITS)
    stays = decode(muxed(tmp_path / "two.mov", RATE_HZ, (quiet, "pcm_s16le"), (VOICE, "pcm_s16le")), LIMITS)

    assert sounds_like_the_voice(yields)
    assert np.abs(stays.samples).max() < 2e-3


def test_the_first_of_two_tracks_that_sound_is_decoded(tmp_path: Path) -> None:
    other = cough_like(1.0, RATE_HZ, seed=5)
    both = decode(muxed(tmp_path / "both.mov", RATE_HZ, (VOICE, "pcm_s16le"), (other, "pcm_s16le")), LIMITS)
    alone = decode(muxed(tmp_path / "alone.mov", RATE_HZ, (VOICE, "pcm_s16le")), LIMITS)

    assert np.array_equal(both.samples, alone.samples)


@pytest.mark.parametrize("other", [(SILENCE, "pcm_s16le"), (VOICE, "eac3")], ids=["silent", "of an unknown codec"])
def test_silence_with_nothing_better_beside_it_is_the_answer(
    tmp_path: Path, other: tuple[npt.NDArray[np.float32], str]
) -> None:
    data = muxed(
        tmp_path / "silent.mov", RATE_HZ, (SILENCE, "pcm_s16le"), other, options=("-disposition:a:0", "default")
    )

    audio = decode(data, LIMITS)

    assert audio.codec == "pcm_s16"
    assert not audio.samples.any()


def test_another_track_that_is_refused_does_not_refuse_the_recording(tmp_path: Path) -> None:
    many = np.repeat(VOICE, 3, axis=0)
    data = muxed(tmp_path / "wide.mkv", RATE_HZ, (SILENCE, "flac"), (many, "flac"))
    with pytest.raises(TooManyChannels):
        decode(muxed(tmp_path / "alone.mkv", RATE_HZ, (many, "flac")), Limits(max_channels=2))

    assert not decode(data, Limits(max_channels=2)).samples.any()


def test_an_empty_track_yields_as_well(tmp_path: Path) -> None:
    data = muxed(tmp_path / "empty.mkv", RATE_HZ, (SILENCE[:, :0], "pcm_s16le"), (VOICE, "pcm_s16le"))

    assert sounds_like_the_voice(decode(data, LIMITS))
    with pytest.raises(AudioError):
        decode(muxed(tmp_path / "alone.mkv", RATE_HZ, (SILENCE[:, :0], "pcm_s16le")), LIMITS)


class TestLegacy:
    """pydub heard what ``ffmpeg`` chooses: the default, then most channels, then the first."""

    def test_it_repeats_the_programs_choice(self, tmp_path: Path) -> None:
        for order in ((SILENCE, VOICE), (VOICE, SILENCE)):
            data = muxed(tmp_path / "two.mkv", RATE_HZ, *((samples, "flac") for samples in order))
            assert sounds_like_the_voice(decode(data, LIMITS, Decoder.PYDUB)) == (order[0] is VOICE)
            (tmp_path / "two.mkv").unlink()

    def test_most_channels_win_and_bring_their_own_decoder(self, tmp_path: Path) -> None:
        """The library chose the first and the program the second: the first's decoder made noise of its packets."""
        data = muxed(
            tmp_path / "two.mkv", RATE_HZ, (VOICE, "libopus"), (np.repeat(VOICE, 2, axis=0), "flac"),
            options=("-disposition:a:0", "0", "-disposition:a:1", "0"),
        )  # fmt: skip

        audio = decode(data, LIMITS, Decoder.PYDUB)

        assert (audio.codec, audio.channels) == ("flac", 2)
        assert np.abs(audio.samples[0] - VOICE[0]).max() < 2 / 32_768

    def test_a_choice_outside_the_table_is_refused(self, tmp_path: Path) -> None:
        data = muxed(
            tmp_path / "two.mkv", RATE_HZ, (VOICE, "libopus"), (np.repeat(VOICE, 2, axis=0), "tta"),
            options=("-disposition:a:0", "0", "-disposition:a:1", "0"),
        )  # fmt: skip

        with pytest.raises(CodecUnsupportedByProfile, match="tta"):
            decode(data, LIMITS, Decoder.PYDUB)
        assert sounds_like_the_voice(decode(data, LIMITS))
