"""``docs/schema.md`` lists the schema. The first queries of ``docs/query.md`` return the right rows.

``test_query_coughs.py`` has the other queries.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from sqlalchemy import Table, make_url

from tests.support.query_document import QUESTIONS, SCHEMA, SECTIONS, number, sections
from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, execute, label, model_facts, rows
from tussis.shared.events import find_events
from tussis.shared.states import AttemptOutcome
from tussis.shared.store.records import ModelFacts, SegmentScores
from tussis.shared.store.repository import Store
from tussis.shared.store.schema import metadata
from tussis.shared.store.views import VIEWS

#: Question -> its answer on the filled database, computed from the fixture.
ANSWERS: dict[int, list[tuple[Any, ...]]] = {
    1: [
        ("s3://recordings/north/1.wav", 0.95, 4.0),
        ("s3://recordings/south/4.wav", 0.8, 60.0),
        ("s3://recordings/north/2.wav", 0.7, 4.0),
        ("s3://recordings/south/3.wav", 0.62, 4.0),
    ],
    2: [("failed", None, 3), ("succeeded", False, 1), ("succeeded", True, 4)],
    3: [("north", 2, 1), ("south", 2, 0.5)],
    4: [("s3://recordings/south/3.wav", 0.62, 0.61), ("s3://recordings/north/2.wav", 0.7, 0.61)],
    5: [("s3://recordings/south/4.wav", 5.5, 6.0, 0.9)],
    6: [
        ("not_audio", 1, "a picture"),
        ("object_missing", 1, "no object at s3://recordings"),
        ("worker_crashed", 1, "2 of 2 attempts crashed (no "),
    ],
    7: [(Decimal("0.5"), 4, 5), (Decimal("0.61"), 4, 5), (Decimal("0.7"), 2, 5)],
    8: [("recordings", "north/2.wav", 0.3, 0.7, True), ("recordings", "south/3.wav", 0.6, 0.62, True)],
    9: [("s3://recordings/south/4.wav", 60.0, 17.5, True)],
    10: [("(unread)", 4, 3.0, None), ("wav", 8, 3.0, 48.0)],
    11: [("recordings", "south/7.wav", "failed", 2)],
    12: [("failed", 3, 3), ("succeeded", 8, 8), ("waiting", 1, 1)],
}

_DIALECT = make_url("postgresql+psycopg://").get_dialect()()


def as_table(columns: Iterable[tuple[str, str, str | None]]) -> str:
    """Return name, type and comment of each column as the document shows them."""
    lines = ["| column | type | |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {kind} | {comment} |" for name, kind, comment in columns]
    return "\n".join(lines) + "\n"


def short(kind: str) -> str:
    return kind.replace("timestamp with time zone", "timestamptz").removesuffix(' collate "c"')


def described(table: Table) -> str:
    """Return the table's columns as the document shows them."""
    kinds = [short(column.type.compile(dialect=_DIALECT).lower()) for column in table.columns]
    return as_table(
        (column.name, kind + (", null" if column.nullable else ""), column.comment)
        for column, kind in zip(table.columns, kinds, strict=True)
    )


@pytest.mark.parametrize("table", metadata.sorted_tables, ids=lambda table: str(table.name))
def test_each_table_stands_in_the_document(table: Table) -> None:
    assert f"### `{table.name}`\n\n{table.comment}\n\n{described(table)}" in SCHEMA


@pytest.mark.parametrize("view", VIEWS)
def test_each_view_and_its_columns_stand_in_the_document(shared_store_url: str, view: str) -> None:
    section = sections(SCHEMA)[f"`{view}`"]
    [(comment,)] = rows(shared_store_url, "SELECT obj_description(%s::text::regclass, 'pg_class')", view)
    assert comment in section.replace("\n", " ")
    columns = columns_of(shared_store_url, view)
    if view == "analyses_newest":
        assert "It has the columns of [`analyses`]" in section
        assert columns == columns_of(shared_store_url, "analyses")
        return
    assert as_table((name, short(kind), words) for name, kind, words in columns) in section + "\n"


def columns_of(url: str, relation: str) -> list[tuple[Any, ...]]:
    """Return name, type and comment of each column in the database."""
    return rows(
        url,
        "SELECT attname, format_type(atttypid, atttypmod), col_description(attrelid, attnum) FROM pg_attribute "
        "WHERE attrelid = %s::text::regclass AND attnum > 0 ORDER BY attnum",
        relation,
    )


@pytest.fixture(scope="module")
def filled(shared_store_url: str) -> str:
    """The URL of a database with rows of every kind."""
    with Store.connect(shared_store_url) as store:
        fill(store)
    execute(shared_store_url, "UPDATE analyses SET enqueued_at = started_at - interval '3 s'")
    return shared_store_url


def fill(store: Store) -> None:
    model = model_facts()
    newer = model_facts(version="2", sha256="b" * 64)

    def answered(key: str, probability: float, *, model: ModelFacts = model, **changes: Any) -> None:
        fields = {"profile": "documented"} | changes
        job = a_job(key=key, metadata={"site": key.split("/")[0]}, model=label(model))
        request = a_claim(job, model, **fields)
        store.complete(claimed(store.claim(request)), a_result(8, probability))

    answered("north/1.wav", 0.95)
    answered("north/2.wav", 0.30)
    answered("north/2.wav", 0.70, model=newer)
    answered("south/3.wav", 0.60)
    answered("south/3.wav", 0.20, profile="legacy", profile_overridden=True)
    answered("south/3.wav", 0.62, model=newer)
    answered("south/9.wav", 0.10)
    long = claimed(store.claim(a_claim(a_job(key="south/4.wav", model="cough@1"), model)))
    hot = range(8, 12)
    scores = SegmentScores(
        start_s=[0.5 * n for n in range(32)],
        end_s=[0.5 * n + 2 for n in range(32)],
        probability=[0.9 if n in hot else 0.1 for n in range(32)],
        logit=[2.2 if n in hot else -2.2 for n in range(32)],
    )
    store.complete(
        long,
        a_result(
            32,
            segments=scores,
            events=find_events(scores.start_s, scores.probability, 60.0),
            truncated=True,
            segments_total=120,
            duration_s=60.0,
            analyzed_s=17.5,
        ),
    )
    store.fail(
        claimed(store.claim(a_claim(a_job(key="south/5.png", model="cough@1"), model))), "not_audio", "a picture"
    )
    store.refuse(a_refusal(a_job(key="south/6.wav")))
    crashed = a_job(key="south/7.wav", model="cough@1")
    for _ in range(3):
        store.claim(a_claim(crashed, model, max_attempts=2))
    waiting = claimed(store.claim(a_claim(a_job(key="south/8.wav", model="cough@1"), model)))
    store.release(waiting, AttemptOutcome.TRANSIENT, "storage_unavailable", "503")
    store.dead_letter("?", None, "malformed_message", "not JSON")


def test_there_are_questions() -> None:
    numbers = [number(title) for title in QUESTIONS]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 24


@pytest.mark.parametrize("title", [title for title in QUESTIONS if number(title) in ANSWERS])
def test_each_question_has_the_right_answer(filled: str, title: str) -> None:
    with psycopg.connect(filled) as connection:
        # Without parameters, as an analyst would send it.
        found = connection.execute(QUESTIONS[title].encode()).fetchall()
    assert [told(row) for row in found] == ANSWERS[number(title)]


def test_the_analysts_role_reads_and_does_not_write(filled: str) -> None:
    statements = SECTIONS["Access"].split("```sql\n")[1].split("```")[0]
    execute(filled, statements)
    try:
        with psycopg.connect(filled, autocommit=True) as connection:
            connection.execute("SET ROLE anna")
            assert connection.execute("SELECT count(*) FROM current_segments").fetchone() == (64,)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("DELETE FROM analyses")
    finally:
        execute(filled, "DROP OWNED BY anna")
        execute(filled, "DROP ROLE anna")


def told(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a row without times, and with only the start of long texts."""
    return tuple(
        value[:28] if isinstance(value, str) else round(value, 2) if isinstance(value, float) else value
        for value in row
        if not isinstance(value, date)
    )
