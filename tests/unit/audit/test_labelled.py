"""Agreement with labels by profile, with values computed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.audits import a_recording, an_answer, plan_of
from tussis.shared.dsp.profiles import LEGACY, TRAINING
from tussis.worker.audit.audit import Audit
from tussis.worker.audit.labelled import LabelledProfiles, compare
from tussis.worker.modelling.comparison import Refusal


def audit_of(model: Path, *rows: tuple[str, float, float, float]) -> Audit:
    """Name, and the probabilities under documented, training and legacy. The threshold is 0.61."""
    audit = Audit(plan_of(model, TRAINING, LEGACY))
    audit.recordings = [
        a_recording(name, an_answer(own), training=an_answer(training), legacy=an_answer(legacy))
        for name, own, training, legacy in rows
    ]
    return audit


def by_name(labelled: LabelledProfiles) -> dict[str, tuple[float, float]]:
    """Profile -> AUROC and accuracy."""
    return {one.profile: (one.auroc.value, one.accuracy.value) for one in labelled.profiles if one.auroc is not None}


def test_the_profile_of_the_training_agrees_best(tiny_model: Path) -> None:
    rows = [(f"c{i}", 0.5 + i / 64, 0.9, (22 + i) / 64) for i in range(20)]
    rows += [(f"b{i}", 0.5 + i / 64, 0.2, 0.5 + i / 64) for i in range(20)]
    labels = {name: name.startswith("c") for name, *_ in rows}

    found = compare(audit_of(tiny_model, *rows), labels, unmatched=3)

    assert (found.recordings, found.coughs, found.left_out, found.unmatched) == (40, 20, 0, 3)
    assert (found.best, found.is_clear) == ("training", True)
    # documented: both classes have the same probabilities, 12 of 20 of each above 0.61.
    assert by_name(found)["documented"] == (0.5, 0.5)
    assert by_name(found)["training"] == (1.0, 1.0)
    # legacy: a cough i is above another j if i > j + 10, and equal if i = j + 10.
    expected = (sum(i > j + 10 for i in range(20) for j in range(20)) + 10 / 2) / 400
    assert by_name(found)["legacy"][0] == pytest.approx(expected)
    lags = {one.profile: one.lag for one in found.profiles}
    assert lags["training"] is None
    assert lags["documented"] is not None
    assert lags["documented"].value == pytest.approx(0.5)


def test_a_small_difference_is_not_called_clear(tiny_model: Path) -> None:
    rows = [("c1", 0.9, 0.9, 0.9), ("c2", 0.8, 0.8, 0.4), ("b1", 0.1, 0.1, 0.5), ("b2", 0.2, 0.2, 0.2)]

    found = compare(audit_of(tiny_model, *rows), {name: name[0] == "c" for name, *_ in rows}, 0)

    assert found.best == "documented"  # equal to training, and first
    assert not found.is_clear


def test_recordings_without_an_answer_under_one_profile_are_left_out(tiny_model: Path) -> None:
    audit = audit_of(tiny_model, ("c", 0.9, 0.9, 0.9), ("b", 0.1, 0.1, 0.1), ("x", 0.5, 0.5, 0.5))
    audit.recordings[2].others["legacy"] = Refusal("codec_unsupported", "no")
    audit.failures.append(("f", Refusal("corrupt", "no")))

    found = compare(audit, {"c": True, "b": False, "x": True, "f": True}, 0)

    assert (found.recordings, found.left_out) == (2, 2)


def test_one_class_has_an_accuracy_and_no_auroc(tiny_model: Path) -> None:
    found = compare(audit_of(tiny_model, ("a", 0.9, 0.5, 0.9), ("b", 0.9, 0.9, 0.9)), {"a": True, "b": True}, 0)

    assert found.best is None
    assert [one.auroc for one in found.profiles] == [None, None, None]
    assert [one.accuracy.value for one in found.profiles] == [1.0, 0.5, 1.0]
    assert [one.false_events_per_hour for one in found.profiles] == [None, None, None]
    assert compare(audit_of(tiny_model), {"a": True}, 1).profiles == ()


def test_events_are_counted_in_recordings_without_a_cough(tiny_model: Path) -> None:
    """7 segments of 2 s cover 5 s. A run above 0.3 of four segments makes one bin, so there is one event each."""
    audit = Audit(plan_of(tiny_model, LEGACY))
    loud, still = [0.1, 0.9, 0.9, 0.9, 0.9, 0.1, 0.1], [0.1] * 7
    audit.recordings = [
        a_recording(
            name,
            an_answer(0.5, segments=loud, duration_s=9.0),
            legacy=an_answer(0.5, segments=still, duration_s=9.0),
        )
        for name in ("b1", "b2", "c1")
    ]

    found = compare(audit, {"b1": False, "b2": False, "c1": True}, 0)

    own, legacy = found.profiles
    assert own.false_events_per_hour is not None
    assert own.false_events_per_hour.value == pytest.approx(2 / (2 * 5.0 / 3600))
    assert own.found is not None
    assert own.found.value == 1.0
    assert legacy.false_events_per_hour is not None
    assert legacy.false_events_per_hour.value == 0.0
    assert legacy.found is not None
    assert legacy.found.value == 0.0


def test_the_f1_of_events_is_that_of_the_labelled_bouts(tiny_model: Path) -> None:
    """The event starts at 2.0 s. One recording has a bout there, one has it elsewhere, one has unknown times."""
    audit = Audit(plan_of(tiny_model, LEGACY))
    loud, still = [0.1, 0.9, 0.9, 0.9, 0.9, 0.1, 0.1], [0.1] * 7
    audit.recordings = [
        a_recording(
            name,
            an_answer(0.5, segments=loud, duration_s=9.0),
            legacy=an_answer(0.5, segments=still, duration_s=9.0),
        )
        for name in ("c1", "c2", "c3", "b1")
    ]
    labels = {"c1": True, "c2": True, "c3": True, "b1": False}
    # The second bout of c1 starts after the 5 s that are analysed.
    coughs = {"c1": [(2.4, 2.9), (7.0, 8.0)], "c2": [(0.1, 0.5)]}

    own, legacy = compare(audit, labels, 0, coughs).profiles

    # c1, c2 and b1 have an event each, and two bouts are known: at 0.5 s one pair, at 0.25 s none.
    assert own.event_f1 is not None
    assert [one.value for one in own.event_f1] == [0.0, pytest.approx(2 * 1 / (3 + 2))]
    assert legacy.event_f1 is not None
    assert [one.value for one in legacy.event_f1] == [0.0, 0.0]
    assert compare(audit, labels, 0).profiles[0].event_f1 is None
    assert compare(audit, {"b1": False}, 0, {}).profiles[0].event_f1 is None
