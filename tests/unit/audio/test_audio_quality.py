"""The quality of recordings: each number and each warning, and that the sizes of the blocks change nothing."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Final

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.encoding import encoded
from tussis.shared.dsp.profiles import PROFILES, Normalise
from tussis.shared.dsp.waveform import normalised
from tussis.shared.errors import NonFiniteSamples, NoSamples
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.quality import (
    CLIPPED_RUN,
    CLIPPED_SHARE,
    DC_OFFSET,
    QUIET,
    SILENCE,
    Quality,
    QualityMeter,
    QualityWarning,
)
from tussis.worker.audio.samples import full_scale
from tussis.worker.audio.table import is_lossless

LIMITS: Final = Limits()
RATE: Final = 16_000
STEP: Final = 2.0**-15
BY_PEAK: Final = next(profile for profile in PROFILES.values() if profile.normalise is Normalise.PEAK)

Samples = npt.NDArray[np.float32]


def measure(*channels: npt.ArrayLike, lossless: bool = True, rate_hz: int = RATE, incomplete: bool = False) -> Quality:
    samples = np.stack([np.asarray(channel, np.float32) for channel in channels])
    meter = QualityMeter(len(samples), lossless=lossless)
    meter.add(samples)
    return meter.quality(duration_s=samples.shape[1] / rate_hz, incomplete=incomplete)


def sine(amplitude: float = 1.0, hertz: float = 440.0, seconds: float = 2.0) -> Samples:
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def noise(amplitude: float = 0.1, seed: int = 0, seconds: float = 2.0) -> Samples:
    return np.random.default_rng(seed).uniform(-amplitude, amplitude, round(seconds * RATE)).astype(np.float32)


def voice(rate_hz: int = RATE, seed: int = 0) -> Samples:
    """Two seconds of noise from 100 to 2,000 Hz in bursts, its largest sample 1.0, without DC."""
    frames = 2 * rate_hz
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(frames))
    hertz = np.fft.rfftfreq(frames, 1 / rate_hz)
    wave = np.fft.irfft(np.where((hertz > 100) & (hertz < 2_000), spectrum, 0), frames)
    wave *= np.sin(2 * np.pi * np.arange(frames) / rate_hz) ** 4
    wave /= np.abs(wave).max()
    return wave.astype(np.float32)


# --- levels -----------------------------------------------------------------------------------------------


def test_a_sine_of_full_scale_has_a_peak_of_0_and_an_rms_of_minus_3_dbfs() -> None:
    quality = measure(sine(hertz=1_000))

    assert quality.peak_dbfs == pytest.approx(0, abs=1e-5)
    assert quality.rms_dbfs == pytest.approx(-3.0103, abs=1e-4)


def test_the_rms_is_over_all_channels_and_includes_the_dc_offset() -> None:
    quality = measure(np.full(RATE, 0.5), np.zeros(RATE))

    assert quality.rms_dbfs == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)))
    assert quality.peak_dbfs == pytest.approx(20 * np.log10(0.5))
    assert quality.dc_offset == 0.5


@pytest.mark.parametrize("samples", [[[0.25, -0.5]], [[0.1, 0.2], [0.3, -4.0]], [[-1.0, 0.5]], [[0.0]], [[1e-40, 0]]])
def test_the_peak_is_the_one_of_the_normalisation(samples: list[list[float]]) -> None:
    block = np.array(samples, np.float32)
    meter = QualityMeter(len(block), lossless=True)
    meter.add(block)

    peak = np.float32(meter.peak)
    assert float(peak) == meter.peak
    divided = normalised(torch.from_numpy(block), BY_PEAK).numpy()
    np.testing.assert_array_equal(divided, block / peak if peak > 0 else block)


def test_digital_silence_has_no_level() -> None:
    quality = measure(np.zeros(2 * RATE), np.zeros(2 * RATE))

    assert quality == Quality(None, None, 0.0, 0.0, ("silent",))
    assert json.loads(json.dumps(asdict(quality), allow_nan=False))["peak_dbfs"] is None


@pytest.mark.parametrize("size", [1e-44, 3e38])
def test_the_numbers_are_finite_for_the_smallest_and_the_largest_floats(size: float) -> None:
    quality = measure([size, -size] * RATE, [-size, size] * RATE)

    json.dumps(asdict(quality), allow_nan=False)
    assert quality.rms_dbfs == pytest.approx(20 * np.log10(float(np.float32(size))))


def test_no_samples_have_no_quality() -> None:
    meter = QualityMeter(2, lossless=True)
    meter.add(np.empty((2, 0), np.float32))

    assert meter.peak == 0
    with pytest.raises(NoSamples):
        meter.quality(duration_s=0, incomplete=False)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [10, 200_000])
def test_samples_that_are_not_finite_are_refused(value: float, size: int) -> None:
    samples = np.zeros((1, size), np.float32)
    samples[0, 7] = value

    with pytest.raises(NonFiniteSamples):
        measure(*samples)


# --- clipping ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lossless", [True, False])
def test_runs_of_three_samples_at_full_scale_are_clipped(lossless: bool) -> None:
    run = [1.0] * CLIPPED_RUN + [0.0]
    short = [1.0] * (CLIPPED_RUN - 1) + [0.0]
    opposite = [-1.0] * (CLIPPED_RUN + 1) + [0.0]

    assert measure(run, lossless=lossless).clipped_share == 3 / 4
    assert measure(short, lossless=lossless).clipped_share == 0
    assert measure(short + run + opposite + short, lossless=lossless).clipped_share == 7 / 15
    assert measure([1.0, 1.0, -1.0, -1.0, 1.0, 1.0], lossless=lossless).clipped_share == 0
    assert measure(run, [0.0] * 4, lossless=lossless).clipped_share == 3 / 8


def test_stored_samples_of_a_run_are_equal_and_those_of_lossy_codecs_overshoot() -> None:
    overshoot = [0.99, 1.1, 1.02, 0.0]

    assert measure(overshoot, lossless=True).clipped_share == 0
    assert measure(overshoot, lossless=False).clipped_share == 3 / 4


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_integers_of_every_width_are_clipped_at_their_largest_value(dtype: type[np.integer]) -> None:
    info = np.iinfo(dtype)
    middle = (int(info.max) + int(info.min) + 1) // 2
    wave = np.tile(np.array([middle, info.max, info.max, info.max, middle, info.min, info.min, info.min], dtype), RATE)

    quality = measure(full_scale(wave))

    assert quality.clipped_share == 6 / 8
    assert "clipped" in quality.warnings


@pytest.mark.parametrize("largest", [32_124 / 32_768, 32_256 / 32_768], ids=["mu-law", "A-law"])
def test_telephone_codecs_are_clipped_at_their_largest_value(largest: float) -> None:
    assert measure(np.clip(sine(2.0), -largest, largest)).clipped_share > 0.5


def test_floats_beyond_full_scale_are_not_clipped_unless_they_are_flat() -> None:
    loud = 4 * voice()

    assert measure(loud).clipped_share == 0
    assert measure(np.clip(loud, -2, 2)).clipped_share > CLIPPED_SHARE


def test_an_intact_wave_at_full_scale_is_not_clipped() -> None:
    wave = np.round(sine(1.0, hertz=100) * 32_767) / 32_768

    assert measure(wave).warnings == ()


@pytest.mark.parametrize(("container", "codec"), [("mp3", "libmp3lame"), ("adts", "aac"), ("ogg", "libopus")])
def test_a_clipped_recording_is_found_behind_a_lossy_codec(container: str, codec: str) -> None:
    intact = voice(48_000)[np.newaxis]

    def warnings(gain: float) -> tuple[str, ...]:
        source = np.clip(gain * intact, -1, 1).astype(np.float32)
        audio = decode(encoded(source, 48_000, container, codec), LIMITS)
        assert not is_lossless(audio.codec)
        return measure(*audio.samples, lossless=False, rate_hz=48_000).warnings

    assert "clipped" not in warnings(1.0)
    assert "clipped" in warnings(4.0)


def test_the_warning_begins_at_its_share() -> None:
    def warnings(runs: int) -> tuple[str, ...]:
        samples = noise()[:30_000]
        samples[: 10 * runs] = np.tile([1.0, 1.0, 1.0, 0, 0, 0, 0, 0, 0, 0], runs)
        return measure(samples).warnings

    assert "clipped" not in warnings(9)
    assert "clipped" in warnings(10)


# --- silence and level ------------------------------------------------------------------------------------


def test_silence_is_up_to_one_step_of_16_bits_around_any_level() -> None:
    dither = np.tile([STEP, -STEP], RATE)

    assert measure(dither).warnings == ("silent",)
    assert measure(dither + 0.01).warnings == ("silent",)
    assert measure(dither + 0.1).warnings == ("silent", "dc_offset")
    assert measure(1.5 * dither).warnings == ("very_quiet",)
    assert SILENCE == STEP


def test_very_quiet_begins_below_its_swing() -> None:
    assert measure(sine(1.01 * QUIET)).warnings == ()
    assert measure(sine(0.99 * QUIET)).warnings == ("very_quiet",)
    assert measure(sine(0.99 * QUIET) + 0.01).warnings == ("very_quiet",)


def test_dc_offset_is_the_largest_mean_of_a_channel_and_warns_above_its_limit() -> None:
    assert measure(sine(0.5), sine(0.5) - 0.1).dc_offset == pytest.approx(0.1, abs=1e-6)
    assert measure(sine(0.5) + 0.99 * DC_OFFSET).warnings == ()
    assert measure(sine(0.5), sine(0.5) - 1.01 * DC_OFFSET).warnings == ("dc_offset",)
    assert measure(sine(10_000) + 100).warnings == ()
    assert measure(sine(10_000) + 300).warnings == ("dc_offset",)


# --- channels ---------------------------------------------------------------------------------------------


def test_one_silent_channel_of_several() -> None:
    assert measure(sine(0.5), np.zeros(2 * RATE)).warnings == ("one_channel_silent",)
    assert measure(*[np.full(2 * RATE, STEP)] * 7, sine(0.5)).warnings == ("one_channel_silent",)
    assert measure(np.zeros(2 * RATE)).warnings == ("silent",)


def test_opposite_channels_cancel_and_unrelated_ones_do_not() -> None:
    sound = voice()

    assert measure(sound, -sound).warnings == ("channels_cancel",)
    assert measure(sound + 0.3, 0.3 - sound).warnings == ("channels_cancel", "dc_offset")
    assert measure(sound, sound, -sound, -sound).warnings == ("channels_cancel",)
    assert measure(sound, -0.8 * sound).warnings == ()
    assert measure(sound, sound).warnings == ()
    assert measure(*(noise(seed=seed) for seed in range(8))).warnings == ()


# --- facts from elsewhere ---------------------------------------------------------------------------------


def test_missing_audio_and_short_recordings() -> None:
    assert measure(noise(), incomplete=True).warnings == ("truncated",)
    assert measure(noise(seconds=1.0)).warnings == ()
    assert measure(noise(seconds=0.99)).warnings == ("mostly_padding",)


def test_warnings_are_plain_strings_in_the_order_of_the_enum() -> None:
    warnings = measure(np.ones(100), np.zeros(100), incomplete=True).warnings

    assert warnings == ("clipped", "silent", "dc_offset", "truncated", "mostly_padding")
    assert {type(warning) for warning in warnings} == {str}
    assert [QualityWarning(warning) for warning in warnings] == [one for one in QualityWarning if one in warnings]


# --- blocks -----------------------------------------------------------------------------------------------


@given(
    channels=st.integers(1, 3),
    levels=st.lists(st.sampled_from([-1.1, -1.0, 0.0, 0.3, 0.98, 1.0, 1.0, 1.1]), min_size=1, max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=60),
    lossless=st.booleans(),
    repeats=st.sampled_from([1, 2_000]),
)
def test_no_split_changes_a_bit(
    channels: int, levels: list[float], cuts: list[int], lossless: bool, repeats: int
) -> None:
    samples = np.array([np.roll(levels, channel) for channel in range(channels)], np.float32).repeat(repeats, axis=1)
    whole = measure(*samples, lossless=lossless)

    meter = QualityMeter(channels, lossless=lossless)
    for block in np.split(samples, sorted(min(cut * repeats, samples.shape[1]) for cut in cuts), axis=1):
        meter.add(block)

    assert meter.quality(duration_s=samples.shape[1] / RATE, incomplete=False) == whole


@pytest.mark.parametrize("size", [1, 2, 3, 1_152])
def test_a_run_goes_on_across_blocks_and_chunks(size: int) -> None:
    samples = np.zeros((1, 300_000 if size > 3 else 3_000), np.float32)
    samples[0, 100:103] = samples[0, 1_000:2_000] = 1.0
    samples[0, 131_071:131_074] = -1.0
    meter = QualityMeter(1, lossless=True)
    for start in range(0, samples.shape[1], size):
        meter.add(samples[:, start : start + size])

    expected = 1_003 + (3 if size > 3 else 0)
    assert meter.quality(duration_s=20, incomplete=False).clipped_share == expected / samples.shape[1]


def test_measuring_in_between_changes_nothing() -> None:
    samples = np.clip(np.stack([4 * voice(), 4 * voice(seed=1)]), -1, 1)
    whole = measure(*samples)
    meter = QualityMeter(2, lossless=True)
    meter.add(samples[:, :7_777])
    meter.quality(duration_s=1, incomplete=False)
    meter.add(np.asfortranarray(samples[:, 7_777:]))

    again = meter.quality(duration_s=2, incomplete=False)
    assert again.rms_dbfs == pytest.approx(whole.rms_dbfs, rel=1e-12)
    assert again.dc_offset == pytest.approx(whole.dc_offset, rel=1e-12)
    assert (again.peak_dbfs, again.clipped_share, again.warnings) == (
        whole.peak_dbfs,
        whole.clipped_share,
        whole.warnings,
    )


def test_the_memory_of_a_block_is_not_kept() -> None:
    samples = sine(0.5)[np.newaxis]
    meter = QualityMeter(1, lossless=True)
    block = samples.copy()
    meter.add(block)
    block[:] = 0

    assert meter.quality(duration_s=2, incomplete=False) == measure(samples[0])
