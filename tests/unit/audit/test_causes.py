"""Facts that explain a shift: each is found in a recording that has it, and in no other."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.support.audits import RATE, audited, bursts, plan_of, wav_of
from tests.support.recordings import Floats
from tussis.shared.dsp.profiles import DOCUMENTED, LEGACY, TRAINING, Profile
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.audit.answers import VariantAnswer
from tussis.worker.audit.causes import Cause, CauseName, measure, rumble_share
from tussis.worker.audit.variants import Factor
from tussis.worker.pipeline.prepare import waveform_of

OFFSET = bursts(3.0, peak=0.8, offset=0.1)
#: A tone of amplitude 0.4 has the power 0.08.
RUMBLE = bursts(3.0, peak=0.5, rumble=0.4)


def causes_of(data: bytes) -> dict[CauseName, Cause]:
    audio = decode(data, Limits())
    return {cause.name: cause for cause in measure(audio, waveform_of(audio, DOCUMENTED).samples)}


def test_a_recording_at_full_scale_has_only_its_padding() -> None:
    assert causes_of(wav_of(bursts(3.0))).keys() == {CauseName.PADDING}


@pytest.mark.parametrize(
    ("samples", "width", "name", "value", "text"),
    [
        (bursts(3.0), 1, CauseName.EIGHT_BIT, 8.0, "8 bit, pcm_u8"),
        (bursts(3.0, peak=0.05), 2, CauseName.QUIET, -26.02, "quiet, peak -26.0 dBFS"),
        (bursts(3.0, peak=0.5), 2, CauseName.LEVEL, -6.02, "level, peak -6.0 dBFS"),
        (OFFSET, 2, CauseName.DC_OFFSET, OFFSET.mean() / np.abs(OFFSET).max(), "DC, 0.1"),
        (RUMBLE, 2, CauseName.RUMBLE, 0.08 / (0.08 + bursts(3.0, peak=0.5).var()), "rumble, 9"),
        (bursts(3.0), 2, CauseName.PADDING, 0.5, "padding, 3 of 6 segments"),
    ],
)
def test_each_fact_is_measured(samples: Floats, width: int, name: CauseName, value: float, text: str) -> None:
    found = causes_of(wav_of(samples, width))

    assert found[name].value == pytest.approx(value, rel=0.05)
    assert found[name].text.startswith(text)


def test_a_sound_beyond_full_scale_is_named(pack: Path) -> None:
    found = causes_of((pack / "formats/variant_float_peak_4.wav").read_bytes())

    assert found[CauseName.BEYOND_FULL_SCALE].value == pytest.approx(12.04, abs=0.02)


def test_the_share_of_rumble_is_the_share_of_power() -> None:
    """Two tones: 0.3 at 20 Hz and 0.4 at 200 Hz have 9 and 16 parts of the power. DC has none."""
    time = np.arange(4 * RATE) / RATE
    wave = 0.3 * np.sin(2 * np.pi * 20 * time) + 0.4 * np.sin(2 * np.pi * 200 * time) + 0.5

    assert rumble_share(torch.from_numpy(wave)) == pytest.approx(9 / 25, abs=1e-6)
    assert rumble_share(torch.zeros(RATE)) == 0.0


@pytest.mark.parametrize(
    ("samples", "width", "other", "factor", "cause"),
    [
        (bursts(3.0, peak=0.02), 2, LEGACY, Factor.NORMALISE, CauseName.QUIET),
        (bursts(3.0, peak=0.2, rumble=0.79), 2, LEGACY, Factor.HIGHPASS, CauseName.RUMBLE),
    ],
    ids=["quiet", "rumble"],
)
def test_a_planted_fault_is_found_and_explained(
    samples: Floats, width: int, other: Profile, factor: Factor, cause: CauseName, tiny_model: Path
) -> None:
    audit = audited(plan_of(tiny_model, other, above=0.0), {"a.wav": wav_of(samples, width)})

    (recording,) = audit.recordings
    attribution = recording.attributions[other.name]
    assert attribution.main is factor
    found = attribution.cause(recording.causes)
    assert found is not None
    assert found.name is cause


def test_8_bits_are_named_where_no_factor_alone_shifts_the_answer(tiny_model: Path) -> None:
    """The offset of pydub shifts the answer with the level that only `legacy` keeps, and not with the peak's level."""
    audit = audited(plan_of(tiny_model, LEGACY, above=0.0), {"a.wav": wav_of(bursts(3.0), 1)})

    (recording,) = audit.recordings
    attribution = recording.attributions["legacy"]
    assert attribution.main is None
    legacy = recording.others["legacy"]
    assert isinstance(legacy, VariantAnswer)
    assert legacy.distance.largest > 0.5
    cause = attribution.cause(recording.causes)
    assert cause is not None
    assert cause.text == "8 bit, pcm_u8"


def test_samples_far_beyond_full_scale_have_no_8_bits() -> None:
    """All float32 numbers beyond 131,072 are multiples of 1/128. Some of them times 128 are no float32 number."""
    file = io.BytesIO()
    soundfile.write(file, np.tile([1e38, -3e37], RATE), RATE, format="WAV", subtype="FLOAT")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert CauseName.EIGHT_BIT not in causes_of(file.getvalue())


def test_a_cough_in_the_tail_is_attributed_to_the_tail(tiny_model: Path) -> None:
    """Noise in the last 0.4 s only: no complete segment has it."""
    samples = np.zeros((1, round(2.4 * RATE)), np.float32)
    samples[0, -round(0.4 * RATE) :] = np.random.default_rng(0).uniform(-1, 1, round(0.4 * RATE))

    audit = audited(plan_of(tiny_model, TRAINING, above=0.0), {"a.wav": wav_of(samples)})

    attribution = audit.recordings[0].attributions["training"]
    assert attribution.main is Factor.TAIL
    cause = attribution.cause(audit.recordings[0].causes)
    assert cause is not None
    assert cause.text == "padding, 4 of 5 segments"
