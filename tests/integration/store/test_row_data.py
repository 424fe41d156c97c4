"""The rows that ``python -m benchmarks rows`` measures are like those that workers write."""

from __future__ import annotations

import pytest

from benchmarks.row_data import MODELS, MONTHS, fill
from benchmarks.rows import documented
from tests.support.query_document import QUESTIONS
from tests.support.store import rows
from tussis.shared.store.repository import Store

#: Rows without the row that they belong to. The generator switches the check of foreign keys off.
ORPHANS = {
    "analyses": "recordings ON recordings.id = child.recording_id WHERE recordings.id",
    "jobs": "analyses ON analyses.id = child.analysis_id WHERE analyses.id",
    "attempts": "analyses ON analyses.id = child.analysis_id WHERE analyses.id",
    "bags": "analyses ON analyses.id = child.analysis_id AND analyses.state = 'succeeded' WHERE analyses.id",
    "events": "analyses ON analyses.id = child.analysis_id AND analyses.state = 'succeeded' WHERE analyses.id",
    "segments": "bags USING (analysis_id, bag_index) WHERE bags.analysis_id",
}


@pytest.fixture(scope="module")
def filled(shared_store_url: str) -> str:
    with Store.connect(shared_store_url) as store:
        for model in MODELS:
            store.register_model(model)
    assert fill(shared_store_url, 20_000, lambda _: None) == 610
    return shared_store_url


@pytest.mark.parametrize("table", ORPHANS)
def test_every_row_belongs_to_another(filled: str, table: str) -> None:
    assert rows(filled, f"SELECT count(*) FROM {table}")[0][0] > 100
    query = f"SELECT count(*) FROM {table} AS child LEFT JOIN {ORPHANS[table]} IS NULL"
    assert rows(filled, query) == [(0,)]


def test_the_numbers_of_rows_are_those_in_the_results(filled: str) -> None:
    assert rows(
        filled,
        """
        SELECT count(*) FROM analyses
        WHERE segments IS DISTINCT FROM nullif((
                SELECT count(*) FROM segments
                WHERE analysis_id = analyses.id AND analysis_created_at = analyses.created_at
            ), 0)
            OR segments IS DISTINCT FROM (SELECT sum(bags.segments) FROM bags WHERE analysis_id = analyses.id)
            OR coalesce(events, 0) <> (SELECT count(*) FROM events WHERE analysis_id = analyses.id)
            OR bag_probability IS DISTINCT FROM (SELECT max(probability) FROM bags WHERE analysis_id = analyses.id)
        """,
    ) == [(0,)]
    [(count,)] = rows(filled, "SELECT count(*) FROM segments")
    assert 0.9 < count / 20_000 < 1.1


def test_the_rows_are_of_fourteen_months(filled: str) -> None:
    months = "SELECT count(DISTINCT tableoid), bool_or(tableoid = 'segments_default'::regclass) FROM segments"
    assert rows(filled, months) == [(MONTHS, False)]
    assert rows(filled, "SELECT key FROM recordings WHERE id = 4") == [("south/4.wav",)]


def test_every_documented_question_is_measured() -> None:
    assert documented() == QUESTIONS
