"""The measurement of rules for cough events: its mixtures, its matching, and its candidates."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.events import measure as measuring
from benchmarks.events.measure import best, judged, measure
from benchmarks.events.mixtures import SERIES, Material, mixtures
from benchmarks.events.rules import MINIMUM, RULES, Rule, ideal
from benchmarks.events.scores import Scored
from training.events import Span
from tussis.shared.dsp import HOP_SECONDS, SAMPLE_RATE, SEGMENT_SECONDS
from tussis.shared.events import EVENT_THRESHOLD
from tussis.worker.evaluation.events import BOUT_PAUSE_S, compared, quality


def scored(bouts: tuple[Span, ...], duration_s: float, high: float = 0.97) -> Scored:
    """A recording and the scores of a model without errors."""
    starts = tuple(HOP_SECONDS * index for index in range(math.ceil(duration_s / HOP_SECONDS)))
    return Scored(
        starts,
        tuple(
            high if any(start < at + SEGMENT_SECONDS and end > at for start, end in bouts) else 0.02 for at in starts
        ),
        duration_s,
        bouts,
    )


FIVE = scored(tuple((3.1 + 3 * number, 3.5 + 3 * number) for number in range(5)), 20.0)
QUIET = scored((), 20.0)
LONG = scored(((4.2, 7.9),), 12.3)


def test_an_event_matches_one_bout_and_a_bout_one_event() -> None:
    found = compared([(1.0, 2.0), (5.0, 6.0)], [(0.7, 1.5), (1.2, 1.4), (4.6, 5.5), (9.0, 9.5)])

    assert (found.bouts, found.events, found.false, found.merging) == (2, 4, 1, 0)
    assert found.matches == (1, 2)
    assert found.onset_errors_s == pytest.approx((-0.3, -0.4))
    assert (found.event_s, found.bout_s) == pytest.approx((0.8 + 0.2 + 0.9 + 0.5, 2.0))


def test_one_event_over_two_bouts_is_merging() -> None:
    found = compared([(1.0, 2.0), (5.0, 6.0)], [(0.5, 7.0)])

    assert (found.merging, found.false, found.matches) == (1, 0, (0, 1))


def test_f1_counts_all_recordings_together() -> None:
    all_right = compared([(1.0, 2.0)], [(1.0, 2.0)])
    missed = compared([(1.0, 2.0), (8.0, 9.0)], [])
    false = compared([], [(3.0, 4.0)])

    found = quality([all_right, missed, false], hours=0.5)

    assert found.f1 == pytest.approx((2 / 5, 2 / 5))
    assert found.f1_interval.low <= 2 / 5 <= found.f1_interval.high
    assert found.found == pytest.approx(1 / 3)
    assert found.false_per_hour == 2
    assert found.seconds_ratio == pytest.approx(2 / 3)


def test_ideal_bins_find_every_bout() -> None:
    found = judged([FIVE, LONG, QUIET], ideal)

    assert (found.f1[-1], found.found, found.false_per_hour, found.merging) == (1.0, 1.0, 0.0, 0)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_finds_events_inside_the_recording(rule: Rule) -> None:
    for one in (FIVE, LONG, scored(((0.3, 0.9),), 1.1)):
        events = rule.find(one, best(rule, [FIVE, LONG]))

        assert events
        assert all(0 <= start < end <= one.duration_s for start, end in events)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(events))
    assert rule.find(QUIET, best(rule, [FIVE, LONG])) == []


def test_five_coughs_are_one_event_when_segments_are_merged_and_five_by_the_rule_of_the_product() -> None:
    assert len(RULES[0].find(FIVE, (0.5,))) == 1
    assert len(MINIMUM.find(FIVE, (EVENT_THRESHOLD,))) == 5


def test_the_parameters_are_those_with_the_highest_f1() -> None:
    unsure = scored(((4.0, 5.0),), 12.0, high=0.42)

    assert best(MINIMUM, [unsure]) < (0.42,)
    assert judged([unsure], lambda one: MINIMUM.find(one, best(MINIMUM, [unsure]))).f1[-1] == 1.0


@pytest.fixture(scope="module")
def material() -> Material:
    rng = np.random.default_rng(0)
    clips = [rng.normal(size=int(seconds * SAMPLE_RATE)).astype(np.float32) for seconds in (0.4, 0.8, 1.7)]
    return Material(tuple(clips), (rng.normal(size=5 * SAMPLE_RATE).astype(np.float32),))


def test_bouts_are_in_the_recording_and_apart(material: Material) -> None:
    drawn = mixtures(material, 60, seed=3)

    assert {len(one.bouts) == 0 for one in drawn} == {True, False}
    assert any(len(one.bouts) == SERIES for one in drawn)
    for one in drawn:
        assert np.abs(one.wave).max() == pytest.approx(1)
        assert all(0 <= start < end <= one.wave.shape[0] / SAMPLE_RATE + 1e-4 for start, end in one.bouts)
        pauses = [after[0] - before[1] for before, after in itertools.pairwise(one.bouts)]
        assert all(pause >= BOUT_PAUSE_S - 1e-9 for pause in pauses)


def test_a_bout_is_louder_than_the_background(material: Material) -> None:
    one = next(one for one in mixtures(material, 20, seed=4) if one.bouts)
    inside = np.zeros(one.wave.shape[0], bool)
    for start, end in one.bouts:
        inside[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)] = True

    assert np.square(one.wave[inside]).mean() > np.square(one.wave[~inside]).mean()


def test_the_same_seed_gives_the_same_recordings(material: Material) -> None:
    one, other = mixtures(material, 3, seed=5), mixtures(material, 3, seed=5)

    assert all(np.array_equal(a.wave, b.wave) and a.bouts == b.bouts for a, b in zip(one, other, strict=True))


def test_the_report_has_a_row_for_each_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "scored", lambda *_: (FIVE, LONG, QUIET))

    report, short = (
        measure(data=Path(), model=Path(), cache=Path(), quick=quick, command="x", say=lambda _: None)
        for quick in (False, True)
    )

    assert [row[0] for row in report.rows] == ["ideal bins (they know the truth)", *(rule.name for rule in RULES)]
    assert [verdict.reached for one in (report, short) for verdict in one.verdicts] == [True, None]
