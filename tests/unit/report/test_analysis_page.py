"""The HTML of one analysis, read by a parser."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from tests.support.reports import a_sound, an_analysis, segments, some_evidence
from tussis.shared.coverage import Coverage
from tussis.shared.states import AnalysisState
from tussis.worker.audio.quality import QualityWarning
from tussis.worker.report.analysis_page import analysis_page, score_points
from tussis.worker.report.words import WARNINGS, seconds, warning

EVIL = "</title><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u202e\n.wav"


class Read(HTMLParser):
    """The elements and the text of a page. Fails where elements are not closed in order."""

    EMPTY = frozenset({"meta", "link", "line", "rect", "path", "image", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def sound() -> Any:
    return a_sound()


def test_the_answer_and_the_numbers(sound: Any) -> None:
    page = Read(analysis_page(some_evidence(sound=sound)))

    assert page.text.count("Cough\ns3://clinic/a.wav") == 1
    assert "The probability of a cough is 0.900. The threshold is 0.61. 1 cough event, 1.5 s in all." in page.text
    for words in ("cough@1", "documented", "head", "20 of 20", "pcm_s16 in wav, 16,000 Hz, 1 channel", "-3.0 dBFS"):
        assert words in page.text
    for words in ("2026-03-01 12:00:01 UTC", "fetch 12.5 ms, inference 48.0 ms", "soundfile", "Tussis 1.2.3"):
        assert words in page.text
    assert len(page.all("audio")) == 1
    assert [figure["class"] for figure in page.all("svg") if figure.get("role") == "img"] == [
        "wave seek",
        "mel seek",
        "scores seek",
    ]
    assert all(figure.get("aria-label") for figure in page.all("svg") if figure.get("role") == "img")
    assert "Segments (20)" in page.text


def test_every_text_from_outside_is_escaped(sound: Any) -> None:
    evil = an_analysis(
        key=EVIL,
        etag=EVIL,
        version_id=EVIL,
        model=EVIL,
        profile=EVIL,
        worker=EVIL,
        codec=EVIL,
        container=EVIL,
        decoder=EVIL,
        warnings=(EVIL,),
        timings_ms={EVIL: 1.0},
        metadata={EVIL: EVIL},
    )
    failed = an_analysis(2, None, key=EVIL, error_class=EVIL, error_message=EVIL)
    page = analysis_page(some_evidence(evil, sound, others=(evil, failed)))

    plain = Read(analysis_page(some_evidence(sound=sound, others=(evil, failed))))
    assert [name for name, _ in Read(page).elements if name in ("script", "img")] == ["script"]
    assert len(plain.all("script")) == 1
    assert "alert(1)</script>" not in page
    assert "\u202e" not in page
    for broken in (analysis_page(some_evidence(failed, segments=(), no_sound=EVIL)),):
        assert not Read(broken).all("script")
        assert "<img" not in broken


def test_the_page_loads_nothing(sound: Any) -> None:
    content = analysis_page(some_evidence(sound=sound))
    page = Read(content)

    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
        # The policy admits no style and no handler in an attribute.
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
    assert not re.search(r"url\(|@import|https?://", content)
    (policy,) = [meta for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert (policy["content"] or "").startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in (policy["content"] or "")


def test_without_the_sound_the_page_says_why() -> None:
    page = Read(analysis_page(some_evidence(no_sound="object_missing: no object at s3://clinic/a.wav")))

    assert "The recording is not available. object_missing: no object at s3://clinic/a.wav" in page.text
    assert "The waveform and the mel image are missing." in page.text
    assert not page.all("audio")
    assert not page.all("script")
    assert [figure["class"] for figure in page.all("svg") if figure.get("role") == "img"] == ["scores"]
    assert not page.all("button")


def test_without_the_player_the_page_says_why() -> None:
    page = Read(analysis_page(some_evidence(sound=a_sound(with_wav=False), no_player="Not part of it.")))

    assert "Not part of it." in page.text
    assert "It contains the recording" not in page.text
    assert not page.all("audio")
    assert len([figure for figure in page.all("svg") if figure.get("role") == "img"]) == 3


@pytest.mark.parametrize("state", [AnalysisState.FAILED, AnalysisState.RUNNING])
def test_an_analysis_without_a_result(state: AnalysisState) -> None:
    failed = an_analysis(5, None, state=state)
    page = Read(analysis_page(some_evidence(failed, segments=(), events=())))

    assert state.value.capitalize() in page.text
    message = "corrupt: the file is damaged" if state is AnalysisState.FAILED else "no result yet"
    assert message in page.text
    assert "There is nothing to draw" in page.text
    assert "Quality" not in page.text


def test_a_long_recording_says_that_it_is_reduced() -> None:
    sound = a_sound(50.0, Coverage.FULL, with_wav=False)
    scores = [index / 3000 for index in range(3000)]
    evidence = some_evidence(an_analysis(coverage="full", duration_s=1501.5), sound, segments=segments(scores))
    points, each = score_points(evidence)

    assert each == 3
    assert points[0] == (2.0, scores[2])
    page = Read(analysis_page(evidence))
    assert "each point is the highest of 3 segments" in page.text
    assert "each column is the mean of" in page.text
    assert "The first 2,000 of 3,000 segments." in page.text


def test_the_part_that_was_analysed() -> None:
    cut = an_analysis(duration_s=7200.0, analyzed_s=17.5, truncated=True)
    sound = replace(a_sound(20.0, with_wav=False), duration_s=7200.0)
    page = Read(analysis_page(some_evidence(cut, sound)))

    assert "Only the first 17.5 s were analysed." in page.text
    assert "The analysed part: 17.5 s of 7,200.0 s (2:00:00)." in page.text
    assert seconds(3599.96) == "3,600.0 s (1:00:00)"


def test_every_warning_has_its_words() -> None:
    assert set(WARNINGS) == {one.value for one in QualityWarning}
    assert warning("new_one").startswith("new_one ")
    page = Read(analysis_page(some_evidence(an_analysis(warnings=tuple(WARNINGS)))))
    for words in WARNINGS.values():
        assert words in page.text
