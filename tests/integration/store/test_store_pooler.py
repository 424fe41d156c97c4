"""The store behind PgBouncer in transaction mode with its defaults."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.support.pooler import SESSIONS
from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, execute, model_facts, rows
from tussis.shared.errors import DatabaseRefused, DatabaseUnavailable, SettingsInvalid
from tussis.shared.states import AnalysisState
from tussis.shared.store import migrate
from tussis.shared.store.records import FailureFilter, ResultFilter
from tussis.shared.store.repository import Store


def test_clients_that_share_sessions_do_not_disturb_each_other(pooled_url: str, store_url: str) -> None:
    """Given more clients than sessions, each with statements in another order, when all work at once, then every client
    gets the result of its own statement."""
    with Store.connect(pooled_url) as store:
        store.verify_schema()
        model = model_facts()
    clients = 3 * SESSIONS
    together = threading.Barrier(clients)

    def work(client: int) -> int:
        done = 0
        with Store.connect(pooled_url) as store:
            together.wait(60)
            for number in range(12):
                key = f"{client}-{number}.wav"
                if (client + number) % 3 == 0:
                    store.refuse(a_refusal(a_job(key=key)))
                    continue
                claim = claimed(store.claim(a_claim(a_job(key=key), model)))
                assert claim.created_at.tzinfo is UTC
                assert store.complete(claim, a_result(count=1 + number))
                assert len(store.segments_of(claim.analysis_id)) == 1 + number
                done += 1
        return done

    with ThreadPoolExecutor(clients) as pool:
        done = sum(pool.map(work, range(clients)))
    with Store.connect(pooled_url) as store:
        assert store.counts().succeeded == done == len(list(store.results(ResultFilter(state=AnalysisState.SUCCEEDED))))
        assert len(list(store.failures(FailureFilter()))) == clients * 12 - done
    # The sessions are unchanged: settings of a transaction end with it.
    for _ in range(2 * SESSIONS):
        with psycopg.connect(pooled_url, autocommit=True, prepare_threshold=None) as other:
            assert other.execute("SHOW statement_timeout").fetchone() == ("0",)
            assert other.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)


def test_a_direct_connection_that_is_none_is_refused(pooled_url: str, store_url: str) -> None:
    with (
        Store.connect(pooled_url, direct=True) as store,
        pytest.raises(SettingsInvalid, match="TUSSIS_DATABASE_DIRECT"),
    ):
        store.verify_schema()
    with Store.connect(store_url, direct=True) as store:
        store.verify_schema()


def test_options_that_the_pooler_refuses_are_named(pooled_url: str) -> None:
    with (
        Store.connect(pooled_url + "?options=-c%20statement_timeout%3D5s") as store,
        pytest.raises(DatabaseRefused, match=r"unsupported startup parameter.*options"),
    ):
        store.verify_schema()


@pytest.mark.parametrize("change", ["nobody:x", "tussis:wrong"])
def test_a_login_that_the_pooler_refuses_is_the_operators(pooled_url: str, change: str) -> None:
    parts = urlsplit(pooled_url)
    url = parts._replace(netloc=f"{change}@{parts.hostname}:{parts.port}").geturl()
    with Store.connect(url) as store, pytest.raises(DatabaseRefused):
        store.verify_schema()


def test_migrations_run_through_the_pooler(pooled_url: str, store_url: str) -> None:
    migrate.downgrade(pooled_url, migrate.BASE)
    assert migrate.current(pooled_url) is None
    migrate.upgrade(pooled_url)
    assert migrate.current(store_url) == migrate.head()
    # The lock ended with its transaction.
    assert rows(store_url, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]


def test_sessions_that_the_server_ended_are_replaced(pooled_url: str, store_url: str) -> None:
    with Store.connect(pooled_url) as store:
        model = model_facts()
        execute(
            store_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid()",
        )
        request = a_claim(a_job(), model)
        try:
            answer = store.claim(request)
        except DatabaseUnavailable:
            # The pooler had not noticed yet. A worker waits and calls again.
            answer = store.claim(request)
        assert claimed(answer).number == 1
