"""Revision 0012: the state ``cancelled``."""

from __future__ import annotations

import psycopg
import pytest

from tests.support.store import a_claim, a_job, a_result, claimed, execute, model_facts, rows
from tussis.shared.states import AttemptOutcome
from tussis.shared.store import migrate
from tussis.shared.store.repository import Store


def test_down_and_up_with_cancelled_rows(store: Store, store_url: str) -> None:
    facts = model_facts()
    store.register_model(facts)
    never, waiting, answered = a_job(key="a.wav", etag="e1"), a_job(key="b.wav"), a_job(key="c.wav")
    claim = claimed(store.claim(a_claim(waiting, facts)))
    store.release(claim, AttemptOutcome.TRANSIENT, "storage_unavailable", "503")
    store.complete(claimed(store.claim(a_claim(answered, facts))), a_result())
    store.cancel([never, waiting], "ops@host")
    store.close()

    migrate.downgrade(store_url, "0011")
    # A job that no attempt began is unknown. The analysis of the other one is set aside, as a failure that is.
    assert rows(store_url, "SELECT state, error_class FROM analyses ORDER BY id") == [
        ("discarded", "cancelled"),
        ("succeeded", None),
    ]
    assert rows(store_url, "SELECT key, state FROM current ORDER BY key") == [
        ("b.wav", "discarded"),
        ("c.wav", "succeeded"),
    ]
    assert rows(store_url, "SELECT count(*) FROM jobs") == [(2,)]

    migrate.upgrade(store_url, "0012")
    assert rows(store_url, "SELECT state, count(*) FROM analyses GROUP BY 1 ORDER BY 1") == [
        ("discarded", 1),
        ("succeeded", 1),
    ]
    execute(store_url, "DELETE FROM analyses WHERE state = 'discarded'")


def test_a_cancelled_row_has_an_end_and_no_error(store: Store, store_url: str) -> None:
    store.cancel([a_job()], "ops@host")
    for change in (
        "finished_at = NULL",
        "error_class = 'x'",
        "attempts = -1",
        "first_attempt = 2",
        "state = 'running'",
    ):
        with pytest.raises(psycopg.errors.CheckViolation):
            execute(store_url, f"UPDATE analyses SET {change}")
    assert rows(store_url, "SELECT state, attempts, first_attempt FROM analyses") == [("cancelled", 0, 1)]
