"""A repetition against its row: what is compared, the limits, and the line that says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.reports import an_analysis, segments
from tests.support.store import a_result, some_software
from tussis.shared.errors import CorruptAudio, NotAudio
from tussis.shared.store.records import Analysis, Result, SegmentScores
from tussis.worker.reproduction.comparison import TOLERANCE, compare
from tussis.worker.reproduction.verdict import Agreement, Verdict, exponent, verdict, verdict_of_failure

EACH = (0.1, 0.5, 0.9, 0.3)
FACTS: dict[str, Any] = {
    "segments": 4,
    "segments_total": 4,
    "duration_s": 2.0,
    "analyzed_s": 2.0,
    "cough_seconds": 1.0,
    "codec": "pcm_s16",
    "software": some_software(),
}


def a_row(**changes: Any) -> Analysis:
    return an_analysis(probability=0.8, **(FACTS | changes))


def again(each: Sequence[float] = EACH, **changes: Any) -> Result:
    starts = [0.5 * index for index in range(len(each))]
    scores = SegmentScores(starts, [start + 2 for start in starts], list(each), [0.0] * len(each))
    fields: dict[str, Any] = {"segments": scores, "codec": "pcm_s16", "software": some_software()}
    return a_result(**({"count": len(each)} | fields | changes))


def judged(row: Analysis, here: Result, stored: Sequence[float] = EACH) -> Verdict:
    return verdict(compare(row, segments(stored), here))


def test_equal_numbers_are_the_same() -> None:
    assert judged(a_row(), again()) == Verdict(Agreement.SAME, "same to 1e-6")


def test_a_difference_within_the_tolerance_names_its_place_and_the_versions() -> None:
    here = again((0.1, 0.50003, 0.9, 0.3))
    assert judged(a_row(), here) == Verdict(
        Agreement.WITHIN_TOLERANCE,
        "same decision, largest difference 3e-5 in segment 1 (0.5 to 2.5 s) (the same versions and processor)",
    )
    older = a_row(software=some_software(onnxruntime_version="1.24.0", processor=""))
    assert judged(older, here).line.endswith(
        "(other onnxruntime: 1.32.0 here, 1.24.0 there; other processor: a processor (avx2) here, unknown there)"
    )
    assert judged(a_row(software=None), here).line.endswith("(the row does not name its versions)")


@given(
    gaps=st.lists(st.floats(-0.05, 0.05), min_size=4, max_size=4), bag=st.floats(-0.05, 0.05).filter(lambda x: x != 0)
)
def test_the_largest_gap_decides(gaps: list[float], bag: float) -> None:
    """The agreement follows from the largest absolute difference of the bag and the segments."""
    here = again([one + gap for one, gap in zip(EACH, gaps, strict=True)], probability=0.8 + bag)
    largest = max(abs(x) for x in (here.bag_probability - 0.8, *gaps))
    found = judged(a_row(), here).agreement
    if abs(largest - TOLERANCE) < 1e-9 or abs(largest - 1e-6) < 1e-9:
        return
    if largest > TOLERANCE:
        assert found is Agreement.DIFFERENT
    else:
        assert found is (Agreement.SAME if largest <= 1e-6 else Agreement.WITHIN_TOLERANCE)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"decision": False}, "decision: no in the row, yes here"),
        ({"peak_dbfs": -3.1}, "peak dbfs: -3.1 in the row, -3 here"),
        ({"peak_dbfs": None}, "peak dbfs: unknown in the row, -3 here"),
        ({"duration_s": 2.1}, "duration s: 2.1 in the row, 2 here"),
        ({"decoder": "pyav"}, "decoder: pyav in the row, soundfile here"),
        ({"warnings": ("clipped",)}, "warnings: clipped in the row, none here"),
        ({"events": 2}, "events: 2 in the row, 1 here"),
        ({"truncated": True}, "truncated: yes in the row, no here"),
    ],
)
def test_another_fact_is_a_difference(changes: dict[str, Any], said: str) -> None:
    found = judged(a_row(**changes), again())
    assert found == Verdict(Agreement.DIFFERENT, f"DIFFERENT: {said} (the same versions and processor)")


@pytest.mark.parametrize("changes", [{"peak_dbfs": -3.004}, {"clipped_share": 0.00005}, {"dc_offset": 0.00105}])
def test_levels_have_a_limit(changes: dict[str, Any]) -> None:
    assert judged(a_row(**changes), again()).agreement is Agreement.SAME


def test_a_decision_that_flips_within_the_tolerance_is_a_difference() -> None:
    row = replace(a_row(), bag_probability=0.6099, decision=False)
    found = judged(row, again(probability=0.6101))
    assert found.line == "DIFFERENT: decision: no in the row, yes here (the same versions and processor)"


def test_another_number_of_segments_is_a_difference() -> None:
    found = judged(a_row(), again(), (*EACH, 0.2))
    assert found.agreement is Agreement.DIFFERENT
    assert "rows of segments: 5 in the row, 4 here" in found.line


def test_deleted_segments_are_said() -> None:
    assert judged(a_row(), again(), ()) == Verdict(
        Agreement.SAME, "same to 1e-6 (without the segments, which `tussis retain` deleted)"
    )


def test_facts_that_an_old_row_lacks_are_not_compared() -> None:
    nothing = dict.fromkeys(
        ("events", "cough_seconds", "peak_dbfs", "rms_dbfs", "clipped_share", "dc_offset", "warnings")
    )
    assert judged(a_row(**nothing), again(peak_dbfs=-50.0)).agreement is Agreement.SAME


def test_failures() -> None:
    failed = an_analysis(probability=None, error_class="not_audio", software=some_software())
    assert verdict_of_failure(failed, NotAudio("x")) == Verdict(Agreement.SAME, "same failure: not_audio")
    assert verdict_of_failure(failed, CorruptAudio("cut")) == Verdict(
        Agreement.DIFFERENT, "DIFFERENT: the row has the failure not_audio, and here the analysis fails as corrupt: cut"
    )
    newer = again(software=some_software(decoder_library="libsndfile 9"))
    assert verdict_of_failure(failed, newer).line == (
        "DIFFERENT: the row has the failure not_audio, and here the analysis succeeds (cough is true, bag probability "
        "0.8; other decoder's library: libsndfile 9 here, libsndfile 1.2.2 there)"
    )
    assert verdict_of_failure(a_row(), CorruptAudio("cut")).line == (
        "DIFFERENT: the row has a result, and here the analysis fails as corrupt: cut"
    )


@pytest.mark.parametrize(("value", "text"), [(3.2e-5, "3e-5"), (9.7e-5, "1e-4"), (0.5, "5e-1"), (1e-6, "1e-6")])
def test_a_small_number_has_one_digit(value: float, text: str) -> None:
    assert exponent(value) == text
