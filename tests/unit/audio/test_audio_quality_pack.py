"""The quality of the pack's recordings: the expected warnings, and few on everyday recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.support.pack import Entry, entries, listed
from tussis.shared.dsp.profiles import Decoder
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.quality import Quality, QualityMeter
from tussis.worker.audio.table import is_lossless

LIMITS: Final = Limits()
EXPECTED: Final = {
    "variant_antiphase_stereo.wav": ("channels_cancel",),
    "variant_clipped_plus18db.wav": ("clipped",),
    "variant_dc_offset.wav": ("dc_offset",),
    "variant_one_channel_silent.wav": ("one_channel_silent",),
    "variant_quiet_minus60db.wav": ("very_quiet",),
}


def of_file(path: Path, decoder: Decoder = Decoder.NATIVE) -> Quality:
    audio = decode(path.read_bytes(), LIMITS, decoder)
    meter = QualityMeter(len(audio.samples), lossless=is_lossless(audio.codec))
    meter.add(audio.samples)
    return meter.quality(duration_s=audio.duration_s, incomplete=audio.incomplete)


@pytest.mark.parametrize("entry", listed("formats/"))
def test_the_formats_of_the_pack(entry: Entry, pack: Path) -> None:
    assert of_file(pack / entry.path).warnings == EXPECTED.get(entry.name, ())


@pytest.mark.parametrize(
    ("name", "warnings"),
    [
        ("silence_3s.wav", ("silent",)),
        ("silence_stereo_48k.wav", ("silent",)),
        ("denormal_f32.wav", ("silent",)),
        ("huge_values_f32.wav", ()),
        ("short_1_sample.wav", ("silent", "dc_offset", "mostly_padding")),
        ("short_10ms.wav", ("mostly_padding",)),
        ("long_3min_8k_u8.wav", ()),
        ("wav_truncated_data.wav", ("truncated",)),
        ("flac_corrupt_middle.flac", ("truncated",)),
    ],
)
def test_odd_recordings_of_the_pack(name: str, warnings: tuple[str, ...], pack: Path) -> None:
    assert of_file(pack / "adversarial" / name).warnings == warnings


def test_everyday_recordings_of_the_pack_have_few_warnings(pack: Path) -> None:
    """Every tenth of the training split. Some are clipped or have an offset indeed, and spoken digits are short."""
    found: dict[str, int] = {}
    everyday = [entry for entry in entries(pack) if entry.split == "train" and "digits" not in entry.path][::10]
    for entry in everyday:
        for warning in of_file(pack / entry.path).warnings:
            found[warning] = found.get(warning, 0) + 1

    short = sum(entry.duration_s is not None and entry.duration_s < 1 for entry in everyday)
    assert found.pop("mostly_padding", 0) <= short + 1
    assert found.pop("dc_offset", 0) <= 0.08 * len(everyday)
    assert found.pop("clipped", 0) <= 0.01 * len(everyday)
    assert found == {}


def test_legacy_tells_what_the_mix_of_the_channels_tells(pack: Path) -> None:
    def warnings(name: str) -> tuple[str, ...]:
        return of_file(pack / "formats" / f"variant_{name}.wav", Decoder.PYDUB).warnings

    assert warnings("antiphase_stereo") == ("silent",)
    assert warnings("one_channel_silent") == ()
    assert warnings("clipped_plus18db") == ("clipped",)
    assert warnings("dc_offset") == ("dc_offset",)
    assert warnings("quiet_minus60db") == ("very_quiet",)
