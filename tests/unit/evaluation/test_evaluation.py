"""The whole evaluation of labelled results, with numbers counted by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from tussis.shared.errors import LabelsInvalid
from tussis.worker.evaluation.evaluation import Case, EvaluationRequest, case_of, check_columns, evaluate
from tussis.worker.evaluation.labels import Label, Span
from tussis.worker.evaluation.scored import Scored, logit_of

HALF_HOUR_S = 1_800.0


def scored(probability: float, segments: Sequence[float] | None = (0.0,), analyzed_s: float = HALF_HOUR_S) -> Scored:
    starts = None if segments is None else [0.5 * index for index in range(len(segments))]
    return Scored(
        "a.wav", probability, logit_of(probability), 0.5, HALF_HOUR_S, analyzed_s, "m@1", "documented", starts, segments
    )


def label(is_cough: bool, site: str = "", line: int = 2) -> Label:
    return Label("a.wav", is_cough, {"site": site}, line)


#: Two of three coughs are found; one of two others is a false alarm. One hour without a cough.
FIVE = [
    case_of(label(True, "north"), scored(0.9), None),
    case_of(label(True, "south"), scored(0.8), None),
    case_of(label(True, "south"), scored(0.3), None),
    case_of(label(False, "south"), scored(0.7), None),
    case_of(label(False, "north"), scored(0.1), None),
]


def test_decisions_by_hand() -> None:
    found = evaluate(FIVE, EvaluationRequest(threshold=0.5))

    assert (found.all.recordings, found.all.coughs) == (5, 3)
    assert (found.all.hours, found.all.hours_without_cough) == (2.5, 1.0)
    decisions = found.all.decisions
    assert [one.value for one in (decisions.sensitivity, decisions.specificity, decisions.precision)] == pytest.approx(
        [2 / 3, 1 / 2, 2 / 3]
    )
    assert decisions.false_alarms_an_hour.value == 1
    assert decisions.false_alarms_an_hour.high == pytest.approx(5.572, abs=1e-3)  # tables: 1 event, 0.0253 to 5.572
    # 6 pairs of a cough and another recording: 0.3 < 0.7 is the only one in the wrong order.
    assert found.all.auroc.value == pytest.approx(5 / 6)
    # Precision at each cough from the top: 1, 1, 3/4.
    assert found.all.average_precision.value == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert next(one.counts.threshold for one in found.sweep if not one.counts.false_positive) == 0.7


def test_the_threshold_of_the_decisions_is_in_the_sweep() -> None:
    assert 0.61 in [one.counts.threshold for one in evaluate(FIVE, EvaluationRequest(threshold=0.61)).sweep]


def test_groups_are_the_values_of_a_column() -> None:
    found = evaluate(FIVE, EvaluationRequest(by=("site",))).groups["site"]

    assert [(value, one.recordings, one.coughs) for value, one in found.items()] == [("north", 2, 1), ("south", 3, 2)]
    assert (found["north"].auroc.value, found["south"].auroc.value) == (1.0, 0.5)
    assert found["south"].decisions.false_alarms_an_hour.value == 2


def test_one_class_only_has_no_areas_and_no_temperature() -> None:
    found = evaluate(FIVE[:3], EvaluationRequest())

    assert math.isnan(found.all.auroc.value)
    assert math.isnan(found.all.average_precision.value)
    assert math.isnan(found.all.decisions.specificity.value)
    assert math.isnan(found.all.decisions.false_alarms_an_hour.value)
    assert math.isnan(found.calibration.temperature)
    assert found.all.decisions.sensitivity.value == pytest.approx(2 / 3)


def test_chosen_thresholds_and_what_they_give() -> None:
    found = evaluate(FIVE, EvaluationRequest(precision=1.0, false_alarms=0.5))

    assert found.for_precision is not None
    assert found.for_precision.threshold is not None
    assert 0.7 <= found.for_precision.threshold < 0.8
    assert found.for_precision.decisions is not None
    assert found.for_precision.decisions.sensitivity.value == pytest.approx(2 / 3)
    assert found.for_false_alarms is not None
    assert found.for_false_alarms.threshold == found.for_precision.threshold
    assert evaluate(FIVE, EvaluationRequest()).for_false_events is None


def with_events(is_cough: bool, coughs: Sequence[Span] | None, segments: Sequence[float]) -> Case:
    return case_of(label(is_cough), scored(0.6, segments), coughs)


#: The bins from 3.5 to 4 s are covered by high segments only, so the event is 3.5 to 4.0 s.
ONE_EVENT = [0.0, 0.0, 0.0, 0.0, 0.9, 0.9, 0.9, 0.9, 0.0, 0.0, 0.0, 0.0]


def test_events_are_measured_where_the_bouts_are_known() -> None:
    cases = [
        with_events(True, [(3.6, 4.0), (9.0, 9.5), (9.9, 10.0)], ONE_EVENT),
        with_events(True, None, ONE_EVENT),  # coughs at unknown times
        with_events(False, None, ONE_EVENT),  # no cough: the event is false
    ]
    found = evaluate(cases, EvaluationRequest(false_alarms=0.0))

    assert found.all.events is not None
    assert (found.all.events.recordings, found.all.events.hours) == (2, 1.0)
    # The coughs at 9.0 and 9.9 s are one bout. One match: 2 * 1 / (2 events + 2 bouts).
    assert found.all.events.quality.f1 == pytest.approx((0.5, 0.5))
    assert found.all.events.quality.found == 0.5
    assert found.all.events.false_an_hour.value == 1
    # Above 0.9 there is no event, and 0.9 is the lowest such threshold.
    assert found.for_false_events is not None
    assert found.for_false_events.threshold == 0.9
    assert [one.quality.events for one in found.event_sweep] == [2] * 8 + [0]


def test_without_segments_no_events_are_measured() -> None:
    found = evaluate([case_of(label(False), scored(0.1, None), None)], EvaluationRequest(false_alarms=1.0))

    assert found.all.events is None
    assert found.event_sweep == ()
    assert found.for_false_events is None


def test_bouts_after_the_analysed_part_are_counted_apart() -> None:
    case = case_of(label(True), scored(0.9, ONE_EVENT, analyzed_s=7.5), [(3.5, 4.0), (60.0, 61.0)])

    assert case.bouts == ((3.5, 4.0),)
    assert evaluate([case], EvaluationRequest()).late_bouts == 1


def test_a_label_and_events_that_contradict_each_other() -> None:
    with pytest.raises(LabelsInvalid, match="label no-cough, and in the file of events 1 events"):
        case_of(label(False), scored(0.1), [(1.0, 2.0)])
    with pytest.raises(LabelsInvalid, match="label cough, and in the file of events a line without times"):
        case_of(label(True), scored(0.1), [])


def test_infinite_logits_do_not_break_the_calibration() -> None:
    cases = [case_of(label(bool(index % 2)), scored(float(index % 3 > 0)), None) for index in range(12)]
    found = evaluate(cases, EvaluationRequest()).calibration

    assert found.temperature == pytest.approx(5.0)
    assert 0 < found.error < 1


def test_columns_are_checked() -> None:
    check_columns([label(True)], ["site"])
    with pytest.raises(LabelsInvalid, match="no column 'device' of groups: its columns are site"):
        check_columns([label(True)], ["device"])
    with pytest.raises(LabelsInvalid, match="'site' has 101 values"):
        check_columns([label(True, str(number)) for number in range(101)], ["site"])
