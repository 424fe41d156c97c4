"""``docs/preprocessing.md`` says what the code does: its tables against the constants and the profiles."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tussis.shared.dsp import constants
from tussis.shared.dsp.profiles import PROFILES, Profile

DOCUMENT = Path(__file__).parents[3] / "docs" / "preprocessing.md"


def section(heading: str) -> str:
    text = DOCUMENT.read_text(encoding="utf-8")
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def rows(text: str) -> list[list[str]]:
    """A Markdown table's rows without its two heading lines, cells stripped of spaces and backticks."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[2:]]


def in_code() -> dict[str, float | tuple[float, ...]]:
    return {name: value for name, value in vars(constants).items() if re.fullmatch(r"[A-Z][A-Z_]+", name)}


def test_every_constant_stands_in_the_table() -> None:
    assert {row[0] for row in rows(section("Constants"))} == set(in_code())
    assert len(in_code()) >= 20


@pytest.mark.parametrize(("name", "written", "unit"), rows(section("Constants")))
def test_a_constant_is_what_the_table_says(name: str, written: str, unit: str) -> None:
    value = in_code()[name]
    assert tuple(map(float, written.split(", "))) == (value if isinstance(value, tuple) else (value,))
    assert unit


def as_row(profile: Profile) -> list[str]:
    highpass = "no" if profile.highpass_hz is None else f"{profile.highpass_hz:g} Hz"
    precision = "float16" if profile.image_float16 else "float32"
    return [
        profile.name, str(profile.version), profile.decoder, profile.normalise, highpass, profile.tail, precision,
    ]  # fmt: skip


def test_the_table_of_profiles_is_the_codes() -> None:
    table = [row[:7] for row in rows(section("Profiles").split("\n### ")[0])]
    assert table == [as_row(profile) for profile in PROFILES.values()]


def prose() -> str:
    return section("From bytes to segments") + section("From a segment to an image")


# The numbers of the two step tables, each from the constant that the code uses.
@pytest.mark.parametrize(
    "statement",
    [
        f"{constants.SEGMENT_SECONDS} s = {constants.SEGMENT_SAMPLES:,} samples".replace(",", " "),
        f"hop {constants.HOP_SECONDS} s = {constants.HOP_SAMPLES:,} samples".replace(",", " "),
        f"at most {constants.MAX_SEGMENTS}",
        f"highpass_biquad(w, {constants.SAMPLE_RATE}, {PROFILES['documented'].highpass_hz})",
        f"n_fft {constants.FFT_SAMPLES}, window {constants.FFT_SAMPLES}",
        f"hop {constants.FRAME_HOP_SAMPLES}, centred with reflect padding: {constants.FRAMES} frames",
        f"{constants.MEL_BANDS} HTK mels, {constants.MEL_LOW_HZ:g} to {constants.MEL_HIGH_HZ:g} Hz",
        f"max(x, {constants.POWER_FLOOR:g})",
        f"clamp((dB + {constants.DYNAMIC_RANGE_DB:g}) / {constants.DYNAMIC_RANGE_DB:g}, 0, 1)",
        f"{constants.MEL_BANDS} x {constants.FRAMES} to {constants.CONTENT_ROWS} x {constants.IMAGE_SIZE}",
        f"on {constants.IMAGE_SIZE} x {constants.IMAGE_SIZE} with {constants.MARGIN_VALUE} "
        f"({constants.MARGIN_ROWS} rows above, {constants.MARGIN_ROWS} below)",
        f"minus {list(constants.IMAGENET_MEAN)}, over {list(constants.IMAGENET_STD)}",
    ],
)
def test_the_step_tables_hold_the_codes_numbers(statement: str) -> None:
    assert statement in prose()
