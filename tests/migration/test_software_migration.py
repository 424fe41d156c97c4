"""Revision 0008: the software of analyses, up with rows and down again."""

from __future__ import annotations

import psycopg
import pytest

from tests.migration.test_views_migration import seen
from tests.support.store import a_claim, a_job, a_result, claimed, execute, model_facts, rows
from tussis.shared.store import migrate
from tussis.shared.store.repository import Store


def test_up_keeps_the_rows_and_down_restores_the_views(store_url: str) -> None:
    with Store.connect(store_url) as store:
        model = model_facts()
        store.register_model(model)
        store.complete(claimed(store.claim(a_claim(a_job(), model))), a_result())
    migrate.downgrade(store_url, "0007")
    before = seen(store_url)
    fields = "SELECT id, recording_id, state, bag_probability, warnings FROM analyses"
    kept = rows(store_url, fields)

    migrate.upgrade(store_url, "0008")

    assert rows(store_url, fields) == kept
    assert rows(store_url, "SELECT software_id FROM analyses_newest") == [(None,)]
    migrate.downgrade(store_url, "0007")
    assert seen(store_url) == before
    assert rows(store_url, fields) == kept
    assert rows(store_url, "SELECT to_regclass('software')") == [(None,)]


def test_up_keeps_the_rights_of_the_analysts(store_url: str) -> None:
    migrate.downgrade(store_url, "0007")
    execute(store_url, "CREATE ROLE software_reader")
    try:
        execute(store_url, "GRANT SELECT ON analyses_newest, model_pairs TO software_reader")

        migrate.upgrade(store_url, "0008")

        with psycopg.connect(store_url) as connection:
            connection.execute("SET ROLE software_reader")
            assert connection.execute("SELECT software_id FROM analyses_newest").fetchall() == []
            assert connection.execute("SELECT uri FROM model_pairs").fetchall() == []
    finally:
        execute(store_url, "DROP OWNED BY software_reader")
        execute(store_url, "DROP ROLE software_reader")


def test_a_combination_has_one_row(store_url: str) -> None:
    row = "INSERT INTO software ({}) VALUES ('1', '1', '1', '1', '', 'cpu', 'original', '')".format(
        "tussis_version, onnxruntime_version, torch_version, torchaudio_version, decoder_library, provider, graph, "
        "processor"
    )
    execute(store_url, row)
    with pytest.raises(psycopg.errors.UniqueViolation):
        execute(store_url, row)
