"""The views ``cough_events``, ``coughs_by_hour`` and ``coughs_by_day``."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.support.store import a_claim, a_job, a_result, claimed, execute, model_facts, rows
from tussis.shared.events import CoughEvent, cough_seconds
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store

#: A zone without whole hours, and one with daylight saving time: neither may change an answer in UTC.
ZONES = ("UTC", "Asia/Kolkata", "America/St_Johns")
#: The end of daylight saving time in America/St_Johns, 2026: 1 November at 04:30 UTC.
START = datetime(2026, 10, 31, 20, tzinfo=UTC)


def an_event(start_s: float, bins: int = 2) -> CoughEvent:
    return CoughEvent(start_s=start_s, end_s=start_s + 0.5 * bins, peak=0.9, mean=0.7, bins=bins)


def store_result(
    store: Store,
    model: ModelFacts,
    key: str,
    events: tuple[CoughEvent, ...],
    *,
    metadata: dict[str, Any],
    **changes: Any,
) -> int:
    """Store a result with these events and return its analysis."""
    claim = claimed(store.claim(a_claim(a_job(key=key, metadata=metadata), model, etag=changes.pop("etag", "e1"))))
    store.complete(claim, a_result(events=events, **changes))
    return claim.analysis_id


def test_an_event_has_a_place_and_a_time_of_day(store: Store, store_url: str, model: ModelFacts) -> None:
    metadata = {"recorded_at": "2026-11-22T14:30:05+01:00", "site": "north", "subject": "P-17"}
    events = (an_event(0.5), an_event(7.5, bins=5))
    store_result(store, model, "old.wav", (an_event(3.0),), metadata=metadata)
    store_result(store, model, "old.wav", events, metadata=metadata, etag="e2", duration_s=60.0, analyzed_s=17.5)
    store_result(store, model, "without.wav", (an_event(1.0),), metadata={})

    found = rows(
        store_url,
        "SELECT uri, event_index, start_s, end_s, length_s, peak, mean, bins, starts_at, ends_at, recorded_at, site, "
        "subject, duration_s, analyzed_s, model, profile, coverage, decision FROM cough_events "
        "ORDER BY key, event_index",
    )

    recorded_at = datetime(2026, 11, 22, 13, 30, 5, tzinfo=UTC)
    facts = (recorded_at, "north", "P-17", 60.0, 17.5, "cough@1", "documented", "head", True)

    def at(seconds: float) -> datetime:
        return recorded_at + timedelta(seconds=seconds)

    uri, nothing = "s3://recordings/old.wav", [None] * 5
    assert found == [
        (uri, 0, 0.5, 1.5, 1.0, 0.9, 0.7, 2, at(0.5), at(1.5), *facts),
        (uri, 1, 7.5, 10.0, 2.5, 0.9, 0.7, 5, at(7.5), at(10.0), *facts),
        ("s3://recordings/without.wav", 0, 1.0, 2.0, 1.0, 0.9, 0.7, 2, *nothing, 2.0, 2.0, *facts[-4:]),
    ]


def test_a_failure_and_an_overridden_coverage_have_no_events(store: Store, store_url: str, model: ModelFacts) -> None:
    store_result(store, model, "a.wav", (an_event(0.5),), metadata={})
    store.fail(claimed(store.claim(a_claim(a_job(), model, etag="e2"))), "not_audio", "a picture")
    execute(store_url, "UPDATE recordings SET key = 'b.wav' WHERE etag = 'e2'")
    assert rows(store_url, "SELECT key FROM cough_events") == [("a.wav",)]

    execute(store_url, "UPDATE analyses SET coverage_overridden = true WHERE state = 'succeeded'")
    assert rows(store_url, "SELECT key FROM cough_events") == []
    assert rows(store_url, "SELECT * FROM coughs_by_day") == []


@dataclass(frozen=True)
class Recorded:
    """A recording of the test of hours and days."""

    recorded_at: datetime | None
    site: str | None
    analyzed_s: float
    silent: bool
    events: tuple[CoughEvent, ...]


@pytest.fixture(scope="module")
def recorded(shared_store_url: str) -> tuple[str, list[Recorded]]:
    """Recordings of every length around the ends of hours and of a day, in a database."""
    drawn = random.Random(7)
    model = model_facts()
    made = []
    with Store.connect(shared_store_url) as store:
        store.register_model(model)
        for number in range(150):
            one = draw(drawn)
            metadata = {"site": one.site} if one.site else {}
            if one.recorded_at is not None:
                metadata["recorded_at"] = one.recorded_at.isoformat()
            store_result(
                store,
                model,
                f"{number}.wav",
                one.events,
                metadata=metadata,
                duration_s=one.analyzed_s,
                analyzed_s=one.analyzed_s,
                warnings=("silent",) if one.silent else (),
            )
            made.append(one)
    return shared_store_url, made


def draw(drawn: random.Random) -> Recorded:
    analyzed_s = drawn.choice([0.25, 2.0, 17.5, 1800.0, 3600.0, 7200.0, 90_000.0])
    at = START + timedelta(seconds=drawn.choice([drawn.randrange(40_000), 3600 * drawn.randrange(10)]))
    starts = [0.0, analyzed_s / 3, analyzed_s / 2, 0.9 * analyzed_s] if analyzed_s > 2 else [0.0]
    count = drawn.randrange(len(starts) + 1)
    return Recorded(
        recorded_at=None if drawn.random() < 0.1 else at,
        site=drawn.choice(["north", "south", None]),
        analyzed_s=analyzed_s,
        silent=drawn.random() < 0.2,
        events=tuple(an_event(0.5 * int(2 * start), drawn.randrange(1, 4)) for start in sorted(starts)[:count]),
    )


def expected(made: list[Recorded], length: timedelta) -> dict[tuple[datetime | None, str | None], list[Any]]:
    """(start of the hour or day, site) -> recordings, silent recordings, hours, events, cough-seconds."""
    totals: dict[tuple[datetime | None, str | None], list[Any]] = defaultdict(lambda: [0, 0, 0.0, 0, 0.0])
    epoch = datetime(2026, 1, 1, tzinfo=UTC)
    for one in made:
        parts: list[tuple[datetime | None, float, tuple[CoughEvent, ...]]] = []
        if one.recorded_at is None:
            parts = [(None, one.analyzed_s, one.events)]
        else:
            end = one.recorded_at + timedelta(seconds=one.analyzed_s)
            period = epoch + (one.recorded_at - epoch) // length * length
            while period < end:
                audio = min(end, period + length) - max(one.recorded_at, period)
                inside = tuple(
                    event
                    for event in one.events
                    if period <= one.recorded_at + timedelta(seconds=event.start_s) < period + length
                )
                parts.append((period, audio.total_seconds(), inside))
                period += length
        for period_start, audio_s, events in parts:
            total = totals[period_start, one.site]
            if one.silent:
                total[1] += 1
                continue
            total[0] += 1
            total[2] += audio_s / 3600
            total[3] += len(events)
            total[4] += cough_seconds(events)
    return totals


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(("view", "length"), [("hour", timedelta(hours=1)), ("day", timedelta(days=1))])
def test_the_numbers_of_each_hour_and_day_are_those_of_utc(
    recorded: tuple[str, list[Recorded]], zone: str, view: str, length: timedelta
) -> None:
    url, made = recorded
    with psycopg.connect(url) as connection:
        connection.execute("SELECT set_config('TimeZone', %s, false)", [zone])
        found = connection.execute(
            f"SELECT {view}, site, recordings, silent_recordings, recorded_hours, events, cough_seconds, "
            f"events_per_recorded_hour FROM coughs_by_{view}".encode()
        ).fetchall()

    totals = expected(made, length)
    assert len(found) == len(totals) > 5
    for start, site, *numbers, rate in found:
        if view == "day" and start is not None:
            start = datetime(start.year, start.month, start.day, tzinfo=UTC)
        total = totals[None if start is None else start.astimezone(UTC), site]
        assert numbers == pytest.approx(total, abs=1e-9), (start, site)
        assert rate == (pytest.approx(total[3] / total[2]) if total[2] else None), (start, site)


def test_events_and_hours_add_up_to_the_whole(recorded: tuple[str, list[Recorded]]) -> None:
    url, made = recorded
    heard = [one for one in made if not one.silent]
    for view in ("hour", "day"):
        [(events, hours)] = rows(url, f"SELECT sum(events)::int, sum(recorded_hours) FROM coughs_by_{view}")
        assert events == sum(len(one.events) for one in heard) > 100
        assert hours == pytest.approx(sum(one.analyzed_s for one in heard) / 3600)


def test_results_without_events_data_are_omitted(store: Store, store_url: str, model: ModelFacts) -> None:
    """Results from before revision 0005: nobody looked for events in them, so they are no hours without coughs."""
    store_result(store, model, "a.wav", (an_event(0.5),), metadata={"site": "north"}, analyzed_s=36.0)
    store_result(store, model, "b.wav", (), metadata={"site": "north"}, analyzed_s=36.0)
    assert rows(store_url, "SELECT recordings, events_per_recorded_hour FROM coughs_by_day") == [(2, 50.0)]

    execute(store_url, "UPDATE analyses SET events = NULL, cough_seconds = NULL WHERE events = 0")
    assert rows(store_url, "SELECT recordings, events_per_recorded_hour FROM coughs_by_day") == [(1, 100.0)]
