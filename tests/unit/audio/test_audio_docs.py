"""``docs/formats.md`` says what the code does."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Final

import pytest

from tussis.shared import errors
from tussis.shared.errors import AudioError, ObjectTooLarge
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.table import DEMUXERS, FFMPEG_DECODERS, SOUNDFILE_SUBTYPES

PAGE: Final = Path(__file__).parents[3] / "docs" / "formats.md"


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    section = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert rows is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in rows[0].splitlines()[2:]]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_containers_and_their_demuxers() -> None:
    stated = {names(row[0])[0]: names(row[3])[0] for row in table("Containers")}

    assert stated == {container.value: demuxer for container, demuxer in DEMUXERS.items()}


def test_codecs_and_their_decoders() -> None:
    stated = {codec: names(decoder)[0] for codecs, decoder in table("Codecs") for codec in names(codecs)}

    uncompressed = dict.fromkeys(SOUNDFILE_SUBTYPES.values(), "soundfile")
    assert stated == dict.fromkeys(FFMPEG_DECODERS.values(), "pyav") | uncompressed


def test_limits_and_their_defaults() -> None:
    stated = {names(row[0])[0]: float(row[1]) for row in table("Limits")}

    assert stated == {field.name: getattr(Limits(), field.name) for field in dataclasses.fields(Limits)}


def test_refusals() -> None:
    stated = {names(row[1])[0]: names(row[0])[0] for row in table("Refusals")}

    kinds = [AudioError, ObjectTooLarge]
    kinds = [kind for base in kinds for kind in (base.__subclasses__() or [base])]
    assert stated == {kind.__name__: kind.error_class for kind in kinds}


@pytest.mark.parametrize("row", table("Limits"), ids=lambda row: row[0])
def test_a_limit_names_a_class_that_exists(row: list[str]) -> None:
    classes = {
        kind.error_class for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "error_class")
    }
    assert set(names(row[2])) <= classes
