"""The typed columns of the recommended metadata, read by a real PostgreSQL."""

from __future__ import annotations

import calendar
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.moments import MOMENTS
from tests.support.store import a_claim, a_job, claimed, execute, rows
from tussis.shared.errors import InvalidJob
from tussis.shared.recommended_metadata import RECORDED_AT, TIME_PATTERN, check_recommended
from tussis.shared.store import upstream_facts
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store

MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: The three columns of each element of an array of metadata, in order. The time is in microseconds since the epoch,
#: because psycopg does not read every ``DateStyle``.
COLUMNS = f"""
SELECT
    (extract(epoch FROM {upstream_facts.RECORDED_AT}) * 1000000)::bigint,
    {upstream_facts.SITE},
    {upstream_facts.SUBJECT}
FROM unnest(%s::jsonb[]) WITH ORDINALITY AS recordings (metadata, number)
ORDER BY number
"""
#: A zone and an order of day and month that would change the result of a time that is not complete.
SESSIONS = [("UTC", "ISO, MDY"), ("Asia/Kolkata", "German, DMY"), ("America/St_Johns", "SQL, YMD")]
#: Texts that look like times to PostgreSQL, or almost.
NEARLY = st.one_of(
    st.text(),
    st.text("0123456789-:+.TZ ", max_size=32),
    st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?(\.[0-9]+)?(Z|[+-][0-9:]{2,8})?"),
    st.sampled_from(["now", "infinity", "-infinity", "epoch", "today", "2026-02-30T00:00Z", "2026-11-22 14:30 BC"]),
)


@pytest.fixture(scope="module", params=SESSIONS, ids=lambda session: session[0])
def connection(request: pytest.FixtureRequest, shared_store_url: str) -> Iterator[psycopg.Connection[Any]]:
    zone, style = request.param
    with psycopg.connect(shared_store_url, autocommit=True) as connection:
        connection.execute(
            "SELECT set_config('TimeZone', %s, false), set_config('DateStyle', %s, false)", (zone, style)
        )
        yield connection


def columns_of(connection: psycopg.Connection[Any], stored: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    found = connection.execute(COLUMNS.encode(), [[json.dumps(one) for one in stored]])
    return [(None if moment is None else EPOCH + moment * MICROSECOND, *texts) for moment, *texts in found]


def accepted(metadata: dict[str, Any]) -> bool:
    try:
        check_recommended(metadata)
    except InvalidJob:
        return False
    return True


def without_nul(value: str) -> bool:
    """Whether jsonb can store the text."""
    return "\x00" not in value


ONE_CONNECTION = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@ONE_CONNECTION
@given(st.lists(MOMENTS, min_size=1, max_size=50))
def test_every_accepted_time_is_read_as_this_time(
    connection: psycopg.Connection[Any], cases: list[tuple[str, datetime]]
) -> None:
    for (found, _, _), (text, moment) in zip(
        columns_of(connection, [{RECORDED_AT: text} for text, _ in cases]), cases, strict=True
    ):
        assert abs(found - moment) <= MICROSECOND, text


@ONE_CONNECTION
@given(st.lists(NEARLY.filter(without_nul), min_size=1, max_size=50))
@example(["2026-11-22T14:30Z\n", "2026-11-22T14:30Z", "\n2026-11-22T14:30Z", "2026-02-29T00:00Z"])
def test_any_text_is_a_time_exactly_if_the_producer_accepts_it(
    connection: psycopg.Connection[Any], texts: list[str]
) -> None:
    found = columns_of(connection, [{RECORDED_AT: text} for text in texts])

    assert [moment is not None for moment, _, _ in found] == [accepted({RECORDED_AT: text}) for text in texts]


@ONE_CONNECTION
@given(st.lists(st.from_regex(TIME_PATTERN, fullmatch=True), min_size=1, max_size=50))
def test_the_cast_reads_every_match_of_the_pattern(connection: psycopg.Connection[Any], texts: list[str]) -> None:
    for (moment, _, _), text in zip(
        columns_of(connection, [{RECORDED_AT: text} for text in texts]), texts, strict=True
    ):
        written = datetime.fromisoformat(text[:10]).replace(tzinfo=UTC)
        assert abs(moment - written) < timedelta(days=2), text


def test_every_day_from_1900_to_2200_is_a_time_exactly_if_it_exists(connection: psycopg.Connection[Any]) -> None:
    days = [(year, month, day) for year in range(1898, 2203) for month in range(14) for day in range(33)]
    texts = [f"{year:04}-{month:02}-{day:02}T12:00+00:00" for year, month, day in days]

    found = columns_of(connection, [{RECORDED_AT: text} for text in texts])

    for (year, month, day), (moment, _, _) in zip(days, found, strict=True):
        exists = 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]
        expected = datetime(year, month, day, 12, tzinfo=UTC) if exists and 1900 <= year <= 2200 else None
        assert moment == expected, (year, month, day)


@pytest.mark.parametrize("shape", ["{}{:02}:{:02}", "{}{:02}{:02}", "{}{:02}"])
def test_every_offset_is_read(connection: psycopg.Connection[Any], shape: str) -> None:
    offsets = [(sign, hour, minute) for sign in "+-" for hour in range(17) for minute in range(62)]
    texts = ["2026-11-22T14:30:05.5" + shape.format(*offset) for offset in offsets]

    found = columns_of(connection, [{RECORDED_AT: text} for text in texts])

    utc = datetime(2026, 11, 22, 14, 30, 5, 500_000, tzinfo=UTC)
    for (sign, hour, minute), text, (moment, _, _) in zip(offsets, texts, found, strict=True):
        east = timedelta(hours=hour, minutes=minute if shape.count("{") == 3 else 0) * (1 if sign == "+" else -1)
        right = hour <= 14 and (minute <= 59 or shape.count("{") == 2)
        assert moment == (utc - east if right else None), text


def test_a_fraction_of_nine_digits_may_round_into_the_next_day(connection: psycopg.Connection[Any]) -> None:
    [(moment, _, _)] = columns_of(connection, [{RECORDED_AT: "2200-12-31T23:59:59.999999999Z"}])
    assert moment == datetime(2201, 1, 1, tzinfo=UTC)


@ONE_CONNECTION
@given(
    st.lists(
        st.one_of(
            st.text().filter(without_nul),
            st.text("aé \U0001f600", min_size=198, max_size=202),
            st.text(st.characters(max_codepoint=0x100)).filter(without_nul),
            st.integers(),
            st.booleans(),
            st.none(),
            st.lists(st.just("north"), max_size=2),
            st.just({"site": "north"}),
        ),
        min_size=1,
        max_size=50,
    )
)
def test_site_and_subject_are_the_accepted_texts_unchanged(
    connection: psycopg.Connection[Any], values: list[Any]
) -> None:
    found = columns_of(connection, [{"site": value, "subject": value} for value in values])

    expected = [value if value is not None and accepted({"site": value}) else None for value in values]
    assert found == [(None, value, value) for value in expected]


@pytest.mark.parametrize("moment", [5, 1_795_357_805.5, True, None, ["2026-11-22T14:30Z"], {"a": "2026-11-22T14:30Z"}])
def test_a_time_that_is_no_string_is_null(connection: psycopg.Connection[Any], moment: object) -> None:
    assert columns_of(connection, [{RECORDED_AT: moment}, {}]) == [(None, None, None)] * 2


def test_a_bad_constant_is_not_read_while_the_query_is_planned(connection: psycopg.Connection[Any]) -> None:
    """PostgreSQL may evaluate an expression of constants before it evaluates the CASE around it."""
    query = f'SELECT {upstream_facts.RECORDED_AT} FROM (SELECT \'{{"recorded_at": "2026-02-30T00:00Z"}}\'::jsonb) '
    assert connection.execute((query + "AS recordings (metadata)").encode()).fetchall() == [(None,)]


def test_the_columns_of_stored_recordings(store: Store, store_url: str, model: ModelFacts) -> None:
    good = {"recorded_at": "2026-11-22T14:30:05+01:00", "site": "north", "subject": "P-17"}
    for key, metadata in (("good.wav", good), ("bad.wav", {"recorded_at": "2026-02-30T00:00Z", "site": 7})):
        claimed(store.claim(a_claim(a_job(key=key, metadata=metadata), model)))

    execute(
        store_url,
        f"CREATE VIEW facts AS SELECT key, {upstream_facts.RECORDED_AT} AS recorded_at, {upstream_facts.SITE} AS site, "
        f"{upstream_facts.SUBJECT} AS subject FROM recordings",
    )

    found = rows(
        store_url, "SELECT key, extract(epoch FROM recorded_at)::int, site, subject FROM facts ORDER BY key DESC"
    )

    moment = int(datetime(2026, 11, 22, 13, 30, 5, tzinfo=UTC).timestamp())
    assert found == [("good.wav", moment, "north", "P-17"), ("bad.wav", None, None, None)]


def test_sqlalchemy_finds_no_parameter_in_the_sql() -> None:
    """A migration executes the views as text, in which ``:name`` is a parameter."""
    for sql in (upstream_facts.RECORDED_AT, upstream_facts.SITE, upstream_facts.SUBJECT):
        assert not sqlalchemy.text(sql).compile().params
        assert "%" not in sql
