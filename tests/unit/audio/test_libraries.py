"""The decoders' libraries, as results name them."""

from __future__ import annotations

import re

import imageio_ffmpeg
import pytest

from tussis.shared.dsp.profiles import Decoder
from tussis.worker.audio import libraries
from tussis.worker.audio.libraries import libraries_of, library_of
from tussis.worker.audio.table import PYAV, PYDUB, SOUNDFILE


@pytest.mark.parametrize(
    ("decoder", "pattern"),
    [
        (SOUNDFILE, r"libsndfile \d+\.\d+\.\d+"),
        (PYAV, r"libavcodec \d+\.\d+\.\d+ \(PyAV \d+\.\d+\.\d+\)"),
        (PYDUB, r"ffmpeg n?\d.* \(pydub \d+\.\d+\.\d+\)"),
    ],
)
def test_name_and_version(decoder: str, pattern: str) -> None:
    assert re.fullmatch(pattern, library_of(decoder))


def test_a_profile_has_the_libraries_of_its_decoders() -> None:
    assert libraries_of(Decoder.NATIVE) == f"{library_of(SOUNDFILE)}, {library_of(PYAV)}"
    assert libraries_of(Decoder.PYDUB) == library_of(PYDUB)


def test_without_ffmpeg_its_version_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise RuntimeError("No ffmpeg exe could be found")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_version", missing)
    assert libraries._ffmpeg_version() == "unknown"
