"""Cough events against labelled bouts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tussis.worker.evaluation.events import TOLERANCES_S, bouts_of, compared, quality
from tussis.worker.evaluation.labels import Span


def paired(times: list[int]) -> list[Span]:
    """Starts and ends on a grid of 0.1 s, in order and without overlap."""
    ordered = sorted(times)
    return [(start / 10, end / 10) for start, end in zip(ordered[::2], ordered[1::2], strict=False)]


spans = st.lists(st.integers(0, 60), max_size=12, unique=True).map(paired)


def largest(bouts: list[Span], events: list[Span], tolerance_s: float) -> int:
    """The largest number of pairs, by trying every choice."""
    if not bouts:
        return 0
    (start, _), *others = bouts
    best = largest(others, events, tolerance_s)
    for index, event in enumerate(events):
        if abs(event[0] - start) <= tolerance_s + 1e-9:
            best = max(best, 1 + largest(others, events[:index] + events[index + 1 :], tolerance_s))
    return best


@settings(max_examples=60, deadline=None)
@given(spans, spans)
def test_the_pairs_are_the_largest_possible_number(bouts: list[Span], events: list[Span]) -> None:
    found = compared(bouts, events)

    assert found.matches == tuple(largest(bouts, events, tolerance_s) for tolerance_s in TOLERANCES_S)


def test_coughs_with_a_short_pause_are_one_bout() -> None:
    coughs = [(1.0, 1.5), (3.4, 3.6), (5.6, 6.0), (8.1, 8.2)]

    assert bouts_of(coughs) == ((1.0, 3.6), (5.6, 6.0), (8.1, 8.2))
    assert bouts_of(coughs, 0) == tuple(coughs)
    assert bouts_of([]) == ()


def test_precision_and_recall_at_each_tolerance() -> None:
    found = quality([compared([(1.0, 2.0), (5.0, 6.0)], [(0.6, 1.5), (5.1, 6.0), (9.0, 9.5)])], hours=0.25)

    assert [one.value for one in found.precision] == pytest.approx([1 / 3, 2 / 3])
    assert [one.value for one in found.recall] == pytest.approx([1 / 2, 1])
    assert found.f1 == pytest.approx((2 / 5, 4 / 5))
    assert (found.false, found.false_per_hour) == (1, 4)


def test_without_bouts_there_is_no_f1() -> None:
    found = quality([compared([], [(1.0, 2.0)])], hours=0.5)

    assert all(map(math.isnan, (*found.f1, found.found, found.onset_error_s, found.seconds_ratio)))
    assert (found.false, found.false_per_hour) == (1, 2)
    assert math.isnan(quality([], hours=0.0).false_per_hour)
