"""The rule of cough events: bins from overlapping segments, events from bins."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tussis.shared.dsp import HOP_SECONDS, SEGMENT_SECONDS
from tussis.shared.events import (
    BIN_S,
    BINS_A_SEGMENT,
    EVENT_THRESHOLD,
    CoughEvent,
    bin_probabilities,
    cough_seconds,
    find_events,
)

Probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=80)


def starts(count: int) -> list[float]:
    return [HOP_SECONDS * index for index in range(count)]


def detected(coughs: Sequence[tuple[float, float]], duration_s: float, high: float = 0.9) -> list[float]:
    """The scores of a model without errors: ``high`` for each segment that overlaps a cough, 0 for the others."""
    return [
        high * any(start < at + SEGMENT_SECONDS and end > at for start, end in coughs)
        for at in starts(math.ceil(duration_s / HOP_SECONDS))
    ]


def events_of(
    probabilities: Sequence[float], duration_s: float, threshold: float = EVENT_THRESHOLD
) -> list[CoughEvent]:
    return list(find_events(starts(len(probabilities)), probabilities, duration_s, threshold))


def recordings() -> st.SearchStrategy[tuple[list[float], float]]:
    """Probabilities, and a duration: the last segment starts before the end."""
    return Probabilities.flatmap(
        lambda given: st.tuples(
            st.just(given), st.floats(0.001, 5).map(lambda more: HOP_SECONDS * (len(given) - 1) + more)
        )
    )


def test_a_bin_has_the_lowest_probability_of_the_segments_over_it() -> None:
    probabilities = [0.9, 0.8, 0.7, 0.95, 0.2, 0.6, 1.0]

    assert bin_probabilities(starts(7), probabilities, 60.0) == (0.9, 0.8, 0.7, 0.7, 0.2, 0.2, 0.2, 0.2, 0.6, 1.0)


def test_bins_end_with_the_recording() -> None:
    assert bin_probabilities(starts(4), [0.1, 0.2, 0.3, 0.4], 1.6) == (0.1, 0.1, 0.1, 0.1)
    assert bin_probabilities(starts(4), [0.1, 0.2, 0.3, 0.4], 2.0) == (0.1, 0.1, 0.1, 0.1)
    assert bin_probabilities(starts(4), [0.1, 0.2, 0.3, 0.4], 2.001) == (0.1, 0.1, 0.1, 0.1, 0.2)


def test_a_short_cough_is_one_bin_at_its_place() -> None:
    assert events_of(detected([(5.1, 5.4)], 12.0), 12.0) == [CoughEvent(5.0, 5.5, 0.9, 0.9, 1)]


def test_five_coughs_three_seconds_apart_are_five_events() -> None:
    coughs = [(2.2 + 3 * number, 2.6 + 3 * number) for number in range(5)]

    events = events_of(detected(coughs, 20.0), 20.0)

    assert [(event.start_s, event.end_s) for event in events] == [
        (2.0, 3.0),
        (5.0, 6.0),
        (8.0, 9.0),
        (11.0, 12.0),
        (14.0, 15.0),
    ]
    assert cough_seconds(events) == 5.0


def test_coughs_in_quick_succession_are_one_event() -> None:
    """Between these coughs no segment is without a cough."""
    [event] = events_of(detected([(5.1, 5.4), (6.6, 6.9), (7.6, 7.9)], 12.0), 12.0)

    assert (event.start_s, event.end_s, event.bins) == (5.0, 8.0, 6)


def test_a_bout_that_crosses_two_bags_is_one_event() -> None:
    [event] = events_of(detected([(15.2, 17.9)], 30.0), 30.0)

    assert (event.start_s, event.end_s) == (15.0, 18.0)


def test_silence_has_no_event() -> None:
    assert events_of([0.0] * 64, 32.0) == []
    assert cough_seconds([]) == 0.0


def test_no_segment_has_no_event() -> None:
    assert bin_probabilities([], [], 1.0) == ()
    assert find_events([], [], 1.0) == ()


@pytest.mark.parametrize(("duration_s", "end_s", "bins"), [(0.2, 0.2, 1), (1.2, 1.2, 3), (2.0, 2.0, 4), (9.0, 2.0, 4)])
def test_one_segment(duration_s: float, end_s: float, bins: int) -> None:
    assert events_of([0.5], duration_s) == [CoughEvent(0.0, end_s, 0.5, 0.5, bins)]


def test_a_probability_at_the_threshold_is_no_cough() -> None:
    assert events_of([EVENT_THRESHOLD] * 8, 4.0) == []
    assert len(events_of([math.nextafter(EVENT_THRESHOLD, 1)] * 8, 4.0)) == 1


def test_peak_and_mean_are_those_of_the_bins() -> None:
    [event] = events_of([0.6] * 4 + [0.9] * 5, 4.5)

    assert (event.peak, event.bins) == (0.9, 9)
    assert event.mean == pytest.approx((7 * 0.6 + 2 * 0.9) / 9)


def test_two_hours_take_milliseconds() -> None:
    probabilities = [(index * 7919 % 1000) / 1000 for index in range(14_400)]
    given = starts(14_400)
    took = []
    for _ in range(5):
        began = time.process_time()
        find_events(given, probabilities, 7_200.0)
        took.append(time.process_time() - began)

    assert min(took) < 0.05


@pytest.mark.parametrize(
    ("given", "probabilities", "duration_s", "words"),
    [
        ([0.0, 0.5], [0.1], 1.0, "2 starts for 1 probabilities"),
        ([0.0, 1.0], [0.1, 0.1], 2.0, "segment 1 starts at 1.0 s, not at 0.5 s"),
        ([0.5], [0.1], 2.0, "segment 0 starts at 0.5 s"),
        ([0.0], [1.1], 2.0, "probability 1.1"),
        ([0.0], [math.nan], 2.0, "probability nan"),
        ([0.0], [0.1], 0.0, "recording of 0.0 s"),
        ([0.0], [0.1], math.inf, "recording of inf s"),
        ([0.0], [0.1], math.nan, "recording of nan s"),
    ],
)
def test_what_is_no_recording_is_refused(
    given: list[float], probabilities: list[float], duration_s: float, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        find_events(given, probabilities, duration_s)


@given(recordings(), st.floats(0, 1))
def test_events_are_in_order_apart_and_inside_the_recording(
    recording: tuple[list[float], float], threshold: float
) -> None:
    probabilities, duration_s = recording
    events = events_of(probabilities, duration_s, threshold)

    for event in events:
        assert 0 <= event.start_s < event.end_s <= duration_s
        assert event.start_s % BIN_S == 0
        assert event.end_s % BIN_S == 0 or event.end_s == duration_s
        assert BIN_S * (event.bins - 1) < event.end_s - event.start_s <= BIN_S * event.bins
        assert threshold < event.mean <= event.peak <= 1 or event.mean == pytest.approx(event.peak)
    assert all(after.start_s >= before.end_s + BIN_S for before, after in itertools.pairwise(events))


@given(recordings(), st.floats(0, 1))
def test_the_bins_of_the_events_are_the_bins_above_the_threshold(
    recording: tuple[list[float], float], threshold: float
) -> None:
    probabilities, duration_s = recording
    bins = bin_probabilities(starts(len(probabilities)), probabilities, duration_s)
    events = events_of(probabilities, duration_s, threshold)

    inside = [
        index
        for event in events
        for index in range(int(event.start_s / BIN_S), int(event.start_s / BIN_S) + event.bins)
    ]
    assert inside == [index for index, probability in enumerate(bins) if probability > threshold]
    assert cough_seconds(events) == BIN_S * len(inside)


@given(recordings(), st.data())
def test_more_probability_removes_no_bin(recording: tuple[list[float], float], data: st.DataObject) -> None:
    lower, duration_s = recording
    higher = [data.draw(st.floats(probability, 1)) for probability in lower]

    before, after = (bin_probabilities(starts(len(lower)), given, duration_s) for given in (lower, higher))

    assert all(old <= new for old, new in zip(before, after, strict=True))


@given(recordings(), st.floats(0, 1), st.floats(0, 1))
def test_a_lower_threshold_removes_no_cough_second(
    recording: tuple[list[float], float], one: float, other: float
) -> None:
    probabilities, duration_s = recording

    low, high = (cough_seconds(events_of(probabilities, duration_s, at)) for at in sorted((one, other)))

    assert low >= high


@given(recordings())
def test_a_bin_depends_only_on_the_segments_over_it(recording: tuple[list[float], float]) -> None:
    probabilities, duration_s = recording
    bins = bin_probabilities(starts(len(probabilities)), probabilities, duration_s)

    assert len(bins) == min(len(probabilities) + BINS_A_SEGMENT - 1, math.ceil(duration_s / BIN_S))
    for index, found in enumerate(bins):
        over = [
            probability
            for at, probability in zip(starts(len(probabilities)), probabilities, strict=True)
            if at <= index * BIN_S < at + SEGMENT_SECONDS
        ]
        assert found == min(over)


@given(
    st.lists(st.tuples(st.floats(0.2, 1.0), st.floats(2.5, 9.0)), min_size=1, max_size=8),
    st.floats(EVENT_THRESHOLD, 1, exclude_min=True),
)
def test_a_model_without_errors_gives_one_event_per_bout(drawn: list[tuple[float, float]], high: float) -> None:
    """Bouts after the first 1.5 s, with pauses of at least 2.5 s: each event has all bins of its bout, no others."""
    coughs = []
    at = 0.0
    for length, pause in drawn:
        start = at + pause
        at = start + length
        coughs.append((start, at))
    duration_s = at + 3.0

    events = events_of(detected(coughs, duration_s, high), duration_s)

    assert len(events) == len(coughs)
    for event, (start, end) in zip(events, coughs, strict=True):
        assert start - BIN_S <= event.start_s <= start
        assert end <= event.end_s <= end + BIN_S
