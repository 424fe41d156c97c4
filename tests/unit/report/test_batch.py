"""The numbers and the HTML of many analyses."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from tests.support.reports import NOON, an_analysis
from tests.unit.report.test_analysis_page import EVIL, Read
from tussis.shared.states import AnalysisState
from tussis.shared.store.records import ResultFilter
from tussis.worker.cli.report import filters_in_words
from tussis.worker.report.batch import Batch
from tussis.worker.report.batch_page import batch_page


def filled() -> Batch:
    """Three coughs, two other results, three failures of two classes, one open analysis. Newest first."""
    batch = Batch({f"s3://clinic/{key}.wav": key in "ab" for key in "abcdz"})
    day = timedelta(days=1)
    rows = [
        an_analysis(9, None, key="z.wav", state=AnalysisState.RUNNING, finished_at=None),
        an_analysis(8, 1.0, key="a.wav", warnings=("clipped", "dc_offset")),
        an_analysis(7, 0.0, key="c.wav", warnings=("clipped",), model="cough@2", threshold=0.5),
        an_analysis(6, 0.95, key="c.wav"),
        an_analysis(5, None, key="x.wav", error_class="too_long", finished_at=NOON - day),
        an_analysis(4, None, key="y.wav", error_message="newer", finished_at=NOON - day),
        an_analysis(3, None, key="y.wav", error_message="older", finished_at=NOON - 2 * day),
        an_analysis(2, 0.3, key="b.wav", finished_at=NOON - 2 * day, started_at=NOON - 2 * day - timedelta(seconds=7)),
        an_analysis(1, 0.7, key="d.wav", finished_at=NOON - 2 * day, started_at=NOON - 2 * day),
    ]
    for row in rows:
        batch.add(row)
    return batch


def test_the_numbers() -> None:
    batch = filled()

    assert (batch.total, batch.results) == (9, 5)
    assert batch.states == {"running": 1, "succeeded": 5, "failed": 3}
    assert {index: dict(counts) for index, counts in enumerate(batch.histogram) if counts} == {
        0: {"no cough": 1},
        6: {"no cough": 1},
        14: {"cough": 1},
        19: {"cough": 2},
    }
    assert batch.days[date(2026, 2, 27)] == {"cough": 1, "no cough": 1, "failed": 1}
    assert batch.days[date(2026, 3, 1)] == {"cough": 2, "no cough": 1}
    assert [(name, one.count, one.newest.id) for name, one in batch.failures_by_class()] == [
        ("corrupt", 2, 4),
        ("too_long", 1, 5),
    ]
    assert batch.warnings == {"clipped": 2, "dc_offset": 1}
    assert batch.thresholds == {0.61: 4, 0.5: 1}
    assert batch.slowest()[0].id == 2


def test_the_newest_result_of_a_labelled_recording_counts() -> None:
    batch = filled()

    assert batch.scored == {
        "s3://clinic/a.wav": (1.0, True),
        "s3://clinic/b.wav": (0.3, True),
        "s3://clinic/c.wav": (0.0, False),
        "s3://clinic/d.wav": (0.7, False),
    }
    page = Read(batch_page(batch, ["prefix s3://clinic/"], NOON, "1.2.3"))
    assert "4 labelled recordings with a result: 2 with a cough, 2 without. 1 label without a result" in page.text
    assert "2 of 4 decisions agree with the label (50.0%)." in page.text
    assert "Area under the curve: 0.750." in page.text
    assert "several models" in page.text
    assert "0.61 *" in page.text


def test_only_the_ten_slowest_are_kept() -> None:
    batch = Batch()
    for number in range(50):
        batch.add(an_analysis(number, finished_at=NOON + timedelta(seconds=(number * 7) % 50)))

    took = [(analysis.finished_at or NOON) - NOON for analysis in batch.slowest()]
    assert [one.total_seconds() for one in took] == list(range(49, 39, -1))


@pytest.mark.parametrize(("length", "name", "rows"), [(92, "day", 92), (93, "month", 5)])
def test_days_or_months(length: int, name: str, rows: int) -> None:
    batch = Batch()
    for number in range(length):
        batch.add(an_analysis(number, finished_at=NOON - timedelta(days=number)))

    page = Read(batch_page(batch, [], NOON, "1.2.3"))
    assert f"Results and failures for each {name} (UTC)" in page.text
    shown = [attributes for attributes in page.all("rect") if attributes["class"] == "fill-cough"]
    assert len(shown) == rows + 1  # and one of the histogram


def test_one_kind_of_label_has_no_curve() -> None:
    batch = Batch({"s3://clinic/a.wav": True})
    batch.add(an_analysis())

    page = Read(batch_page(batch, [], NOON, "1.2.3"))
    assert "There are no curves" in page.text
    assert "1 of 1 decisions agree" in page.text


def test_no_analyses() -> None:
    page = Read(batch_page(Batch({"s3://clinic/a.wav": True}), [], NOON, "1.2.3"))

    assert page.text.count("No results.") == 2
    assert "0 analyses" in page.text
    assert "0 labelled recordings" in page.text


def test_every_text_from_outside_is_escaped() -> None:
    batch = Batch()
    batch.add(an_analysis(2, None, key=EVIL, error_class=EVIL, error_message=EVIL))
    batch.add(an_analysis(1, key=EVIL, model=EVIL, profile=EVIL, warnings=(EVIL,), timings_ms={EVIL: 1.0}))
    content = batch_page(batch, [f"prefix {EVIL}"], NOON, "1.2.3")

    assert not [name for name, _ in Read(content).elements if name in ("script", "img")]
    assert "\u202e" not in content


def test_the_filters_in_words() -> None:
    wanted = ResultFilter(since=NOON, decision=False, state=AnalysisState.SUCCEEDED, prefix="s3://clinic/")

    assert filters_in_words(wanted) == [
        "since 2026-03-01 12:00:00 UTC",
        "decision no-cough",
        "state succeeded",
        "prefix s3://clinic/",
    ]
    assert filters_in_words(ResultFilter()) == []
