"""The legacy decoder against pydub's own entry point, to the last bit."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
import pytest

from tests.support.encoding import encoded, interleaved, wav
from tests.support.recordings import cough_like
from tussis.shared.dsp.profiles import Decoder
from tussis.shared.errors import CodecUnsupportedByProfile, DiskFull, NotInstalled, TooLong
from tussis.worker.audio import legacy
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits


@pytest.fixture
def segment(monkeypatch: pytest.MonkeyPatch) -> Any:
    """pydub's ``AudioSegment``, which finds an ffmpeg."""
    from pydub import AudioSegment  # warns when it is imported first here and not by ``legacy``, which expects it

    monkeypatch.setattr(AudioSegment, "converter", imageio_ffmpeg.get_ffmpeg_exe())
    return AudioSegment


def old_backend(decoded: Any) -> npt.NDArray[np.float32]:
    """The scaling as the contract states it, from pydub's integers."""
    mono = decoded.set_channels(1)
    integers = np.array(mono.get_array_of_samples())
    match mono.sample_width:
        case 1:
            return np.asarray(integers.astype(np.float32) / 128 - 1, np.float32)
        case 2:
            return np.asarray(integers.astype(np.float32) / 32_768, np.float32)
        case _:
            return np.asarray(integers.astype(np.float32) / 2**31, np.float32)


@pytest.mark.parametrize(
    ("name", "demuxer", "decoder"),
    [
        ("mp3_cbr32_stereo_8k.mp3", "mp3", "mp3float"),
        ("mp3_vbr_mono_44k.mp3", "mp3", "mp3float"),
        ("m4a_aac_moov_at_end.m4a", "mov", "aac"),
        ("ogg_vorbis_mono_44k.ogg", "ogg", "vorbis"),
        ("webm_opus_mediarecorder.webm", "matroska", "opus"),
        ("flac_s24_stereo_48k.flac", "flac", "flac"),
        ("amrnb_12k2_8k.amr", "amr", "amrnb"),
        ("wma_v2_44k.wma", "asf", "wmav2"),
        ("aiff_s16be_44k.aiff", "aiff", "pcm_s16be"),
        ("wav_mulaw_mono_8k.wav", "wav", "pcm_mulaw"),
        ("wav_s16le_stereo_44k.wav", "wav", "pcm_s16le"),
        ("wav_s24le_stereo_48k.wav", "wav", "pcm_s24le"),
        ("wav_s32le_stereo_16k.wav", "wav", "pcm_s32le"),
        ("wav_u8_stereo_8k.wav", "wav", "pcm_u8"),
        ("wav_f32le_stereo_44k.wav", "wav", "pcm_f32le"),
        ("wav_s16le_rf64_48k.wav", "wav", "pcm_s16le"),
    ],
)
def test_it_equals_pydub(pack: Path, segment: Any, name: str, demuxer: str, decoder: str) -> None:
    path = pack / "formats" / name
    with path.open("rb") as file:  # pydub leaves a WAV that it is given by name open
        expected = segment.from_file(file if demuxer == "wav" else str(path), format=demuxer, codec=decoder)

    audio = decode(path.read_bytes(), Limits(), Decoder.PYDUB)

    assert np.array_equal(audio.samples, old_backend(expected)[np.newaxis, :])
    assert (audio.rate_hz, audio.channels) == (expected.frame_rate, expected.channels)
    assert audio.duration_s == audio.samples.shape[1] / audio.rate_hz


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_every_width_and_number_of_channels_equals_pydub(segment: Any, channels: int, bits: int) -> None:
    noise = np.random.default_rng(bits + channels)
    data = wav(noise.bytes(channels * bits // 8 * 500), channels=channels, bits=bits)
    expected = segment.from_file(io.BytesIO(data), format="wav")

    audio = decode(data, Limits(), Decoder.PYDUB)

    assert np.array_equal(audio.samples, old_backend(expected)[np.newaxis, :])
    assert audio.channels == channels


def test_the_mean_of_two_channels_floors() -> None:
    frames = np.array([[-1, -3, 3, 1], [0, 0, 0, 0]], dtype="<i2")

    audio = decode(wav(interleaved(frames), channels=2), Limits(), Decoder.PYDUB)

    assert (audio.samples * 32_768).tolist() == [[-1, -2, 1, 0]]


def test_six_channels_too_loud_for_pydubs_sum_are_refused(segment: Any) -> None:
    """It floors -32 768 / 6 to -5 462 six times, which is 4 below the lowest integer, and raises OverflowError."""
    data = wav(interleaved(np.full((6, 10), -32_768, "<i2")), channels=6)
    with pytest.raises(OverflowError):
        segment.from_file(io.BytesIO(data), format="wav").set_channels(1)

    with pytest.raises(CodecUnsupportedByProfile, match="6 channels"):
        decode(data, Limits(), Decoder.PYDUB)


def test_ffmpeg_stops_at_the_limit_on_duration() -> None:
    data = encoded(cough_like(4.0, 8_000), 8_000, "ogg", "libopus")
    limits = Limits(max_duration_s=2.0)

    with pytest.raises(TooLong):
        decode(data, limits, Decoder.PYDUB)

    made = legacy.ffmpeg_wav(data, "ogg", "opus", limits)
    assert len(made) == pytest.approx(3 * 48_000 * 2, rel=0.01)


def test_ffmpeg_stops_at_the_limit_on_memory() -> None:
    data = encoded(cough_like(4.0, 8_000), 8_000, "ogg", "libopus")
    limits = Limits(whole_bytes=100_000)

    with pytest.raises(TooLong):
        decode(data, limits, Decoder.PYDUB)

    assert len(legacy.ffmpeg_wav(data, "ogg", "opus", limits)) < 100_000


def test_a_missing_ffmpeg_is_the_operators_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(cough_like(0.5, 8_000), 8_000, "ogg", "libopus")
    monkeypatch.setattr(legacy, "ffmpeg_executable", lambda: "/nowhere/ffmpeg")

    with pytest.raises(NotInstalled, match="/nowhere/ffmpeg"):
        decode(data, Limits(), Decoder.PYDUB)


@pytest.mark.parametrize("full", [1, 2], ids=["what ffmpeg reads", "what it writes"])
def test_a_full_disk_is_the_operators_to_mend(monkeypatch: pytest.MonkeyPatch, full: int) -> None:
    """Not a damaged recording: that would be a failure for good."""
    data = encoded(cough_like(0.5, 8_000), 8_000, "ogg", "libopus")
    made = 0

    def file() -> Any:
        nonlocal made
        made += 1
        return open("/dev/full", "w+b") if made == full else os.fdopen(os.memfd_create("room"), "w+b")

    monkeypatch.setattr(tempfile, "TemporaryFile", file)

    with pytest.raises(DiskFull, match="free space"):
        decode(data, Limits(), Decoder.PYDUB)
