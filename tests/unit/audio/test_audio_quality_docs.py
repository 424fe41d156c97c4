"""``docs/quality.md`` says what the code does."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Final

from tussis.worker.audio import quality
from tussis.worker.audio.quality import Quality, QualityWarning

PAGE: Final = (Path(__file__).parents[3] / "docs" / "quality.md").read_text(encoding="utf-8")


def table(heading: str) -> dict[str, str]:
    """The first two columns of the table below a heading, without its head."""
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE))


def test_the_numbers_and_the_warnings_are_those_of_the_code_in_their_order() -> None:
    assert list(table("Numbers")) == [field.name for field in dataclasses.fields(Quality)]
    assert list(table("Warnings")) == [warning.value for warning in QualityWarning]


def test_the_thresholds_are_those_of_the_code() -> None:
    when = table("Warnings")

    assert f"is {quality.CLIPPED_SHARE:g} or more" in when["clipped"]
    assert f"({20 * math.log10(quality.SILENCE):.1f} dBFS)" in when["silent"]
    assert f"{20 * math.log10(quality.QUIET):.0f} dBFS" in when["very_quiet"]
    assert f"less than {quality.CANCELLED:g} of the power" in when["channels_cancel"]
    assert f"above {quality.DC_OFFSET:g}," in when["dc_offset"]
    assert f"shorter than {quality.SHORT_S:g} s" in when["mostly_padding"]
    assert f"at least {quality.CLIPPED_RUN} consecutive samples" in PAGE
    assert f"at {quality.NEAR_FULL_SCALE:g} of full scale" in PAGE
