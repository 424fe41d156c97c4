"""Reports in headless Chromium: nothing is loaded, nothing runs that is not ours, and the page fits a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Page, chromium
from tests.support.reports import NOON, a_sound, an_analysis, some_evidence
from tests.unit.report.test_analysis_page import EVIL
from tests.unit.report.test_batch import filled
from tussis.worker.report.analysis_page import analysis_page
from tussis.worker.report.batch_page import batch_page
from tussis.worker.report.still import WIDTH

#: The colour of the page's text and background as numbers.
COLOURS = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
METADATA = "new Promise((done) => { const audio = document.querySelector('audio'); const tell = () => done("
METADATA += "audio.error ? audio.error.message : audio.duration); if (audio.readyState || audio.error) tell(); else "
METADATA += "for (const name of ['loadedmetadata', 'error']) audio.addEventListener(name, tell); })"


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with chromium() as page:
        yield page


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files of some reports, with texts that try to escape."""
    folder = tmp_path_factory.mktemp("reports")
    evil = an_analysis(key=EVIL, model=EVIL, metadata={EVIL: "x" * 500}, warnings=("clipped", "silent"), etag="e" * 300)
    batch = filled()
    batch.add(an_analysis(10, None, key=EVIL + "x" * 500, error_class="corrupt", error_message=EVIL))
    batch.add(an_analysis(11, key=EVIL + "x" * 500, started_at=NOON.replace(year=2025), warnings=("silent",)))
    pages = {
        "analysis": analysis_page(some_evidence(evil, a_sound(), others=(evil,))),
        "failure": analysis_page(some_evidence(an_analysis(5, None, error_message=EVIL), segments=(), events=())),
        "batch": batch_page(batch, [EVIL], NOON, "1.2.3"),
    }
    for name, content in pages.items():
        (folder / f"{name}.html").write_text(content, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in pages}


@pytest.mark.parametrize("name", ["analysis", "failure", "batch"])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1_100])
def test_a_page_fits_and_loads_nothing(
    browser: Page, reports: dict[str, Path], tmp_path: Path, name: str, dark: bool, width: int
) -> None:
    browser.open(reports[name], width=width, dark=dark)
    for closed in range(browser.value("document.querySelectorAll('details').length")):
        browser.value(f"document.querySelectorAll('details')[{closed}].open = true")

    assert browser.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert browser.requests() == [reports[name].as_uri()]
    assert browser.complaints() == []
    back, front = (
        sum(map(int, colour.removeprefix("rgb(").rstrip(")").split(","))) for colour in browser.value(COLOURS)
    )
    assert (back < 100 and front > 500) if dark else (back > 700 and front < 150)
    sizes = browser.value(
        "[...document.querySelectorAll('svg[role=img]')].map((one) => one.getBoundingClientRect().width)"
    )
    assert all(size > 250 for size in sizes)
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000


def test_the_player_plays_and_moves_the_cursor(browser: Page, reports: dict[str, Path]) -> None:
    browser.open(reports["analysis"], width=360, dark=False)

    assert browser.value(METADATA) == pytest.approx(10.0, abs=0.01)
    seek = "new Promise((done) => { const audio = document.querySelector('audio'); "
    seek += (
        "audio.addEventListener('seeked', () => setTimeout(() => done(audio.currentTime), 50), {once: true}); %s; })"
    )
    middle = "const plot = document.querySelector('svg.mel'); const box = plot.getBoundingClientRect(); "
    middle += "plot.dispatchEvent(new MouseEvent('click', {clientX: box.left + box.width / 2, bubbles: true}))"
    assert browser.value(seek % middle) == pytest.approx(11.5 / 2, abs=0.05)
    cursors = browser.value("[...document.querySelectorAll('.cursor')].map((one) => one.getAttribute('x1'))")
    assert [float(position.rstrip("%")) for position in cursors] == pytest.approx([50, 50, 50], abs=0.5)
    # The button of the cough event starts at its time.
    assert browser.value(seek % "document.querySelector('button[data-at]').click()") == pytest.approx(3.5, abs=0.3)


def test_a_foreign_script_does_not_run(browser: Page, reports: dict[str, Path], tmp_path: Path) -> None:
    """Even if a text were not escaped, the policy of the page would stop it."""
    content = reports["analysis"].read_text(encoding="utf-8")
    holed = tmp_path / "holed.html"
    holed.write_text(content.replace("<header>", "<header><script>document.title = 'owned'</script>"), encoding="utf-8")
    browser.open(holed, width=WIDTH, dark=False)

    assert browser.value("document.title").startswith("Cough: s3://clinic/")
    assert any("Content Security Policy" in complaint for complaint in browser.complaints())
