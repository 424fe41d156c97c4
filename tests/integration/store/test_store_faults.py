"""What the database can do to us, as our errors; and that the pool recovers."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import sqlalchemy.exc

from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, execute, rows
from tests.support.waiting import PATIENCE, wait_until
from tussis.shared.errors import (
    DatabaseRefused,
    DatabaseUnavailable,
    DiskFull,
    SchemaMismatch,
    SettingsInvalid,
    TussisError,
)
from tussis.shared.store import connection as store_connection
from tussis.shared.store.faults import database_errors, translated
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store
from tussis.shared.store.schema import SCHEMA_REVISION
from tussis.worker.soak.tcp_proxy import TcpProxy


def changed(url: str, **parts: str) -> str:
    """The URL with another user, password, host, port or path."""
    old = urlsplit(url)
    user, password = parts.get("user", old.username), parts.get("password", old.password)
    host, port = parts.get("host", old.hostname), parts.get("port", old.port)
    return urlunsplit(old._replace(netloc=f"{user}:{password}@{host}:{port}", path=parts.get("path", old.path)))


OTHER_BACKENDS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def kill_backends(url: str) -> None:
    """End every other connection to the database, as its administrator would, and wait until they are gone."""
    execute(url, f"SELECT pg_terminate_backend(pid) {OTHER_BACKENDS}")
    wait_until(lambda: rows(url, f"SELECT count(*) {OTHER_BACKENDS}") == [(0,)], 30, "the backends to end")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"password": "wrong"}, DatabaseRefused, "password authentication failed"),
        ({"user": "nobody"}, DatabaseRefused, "password authentication failed"),
        ({"path": "/nowhere"}, DatabaseRefused, 'database "nowhere" does not exist'),
        ({"host": "no-such-host.invalid"}, DatabaseUnavailable, "is it running"),
        ({"port": "CLOSED"}, DatabaseUnavailable, "refused"),
    ],
    ids=str,
)
def test_a_wrong_url_is_one_line_without_the_password(
    store_url: str, unused_port: int, change: dict[str, str], error: type[TussisError], words: str
) -> None:
    if "port" in change:
        change = {"port": str(unused_port)}
    url = changed(store_url, **change)
    with Store.connect(url) as store, pytest.raises(error, match=re.escape(words)) as caught:
        store.verify_schema()
    message = str(caught.value)
    assert "\n" not in message
    assert str(urlsplit(url).password) not in message
    assert "TUSSIS_DATABASE_URL" in message


@pytest.mark.parametrize("url", ["mysql://a:secret@b/c", "host=localhost", "", "postgresql://a:secret@b:port/c"])
def test_what_is_no_url_is_a_setting_that_is_wrong(url: str) -> None:
    with pytest.raises(SettingsInvalid, match="not a PostgreSQL URL") as caught:
        Store.connect(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_scheme_of_postgresql_means_psycopg_3(store_url: str, scheme: str) -> None:
    with Store.connect(scheme + store_url.removeprefix("postgresql")) as store:
        store.verify_schema()


def test_a_server_that_never_answers_is_left_after_five_seconds(store_url: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = str(silent.getsockname()[1])
        began = time.monotonic()
        with Store.connect(changed(store_url, port=port)) as store, pytest.raises(DatabaseUnavailable):
            store.counts()
        assert time.monotonic() - began < 7 * PATIENCE


def test_a_server_that_falls_silent_is_left(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_connection, "ANSWER_SLACK_S", 1)
    parts = urlsplit(store_url)
    assert parts.hostname is not None
    assert parts.port is not None
    with TcpProxy(parts.hostname, parts.port) as proxy:
        url = changed(store_url, host="127.0.0.1", port=str(proxy.port))
        engine = store_connection.connect_engine(url, statement_timeout_s=1)
        with Store(engine) as store:
            assert store.counts().succeeded == 0

            proxy.freeze()
            began = time.monotonic()
            with pytest.raises(DatabaseUnavailable):
                store.counts()
            # Once to look at the pooled connection, then five seconds for a new one.
            assert time.monotonic() - began < 8 * PATIENCE

            proxy.resume()
            assert store.counts().succeeded == 0


def test_killed_connections_are_replaced(store: Store, store_url: str, model: ModelFacts) -> None:
    claim = claimed(store.claim(a_claim(a_job(), model)))
    kill_backends(store_url)
    # The pool looks at a connection before it gives it out.
    assert store.complete(claim, a_result())


def test_a_connection_killed_in_the_middle_is_transient_and_leaves_nothing(
    store: Store, store_url: str, model: ModelFacts
) -> None:
    job = a_job()
    claim = claimed(store.claim(a_claim(job, model)))

    with locked(store_url, "LOCK TABLE segments IN ACCESS EXCLUSIVE MODE"):
        # The completion has written its state and its bag, and waits for the table of segments.
        with in_thread(lambda: store.complete(claim, a_result())) as outcome:
            wait_until(lambda: waiting_backends(store_url), 10, "the completion to wait for the lock")
            execute(
                store_url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                "AND datname = current_database()",
            )
        assert isinstance(outcome[0], DatabaseUnavailable)

    assert rows(store_url, "SELECT state FROM analyses") == [("running",)]
    assert rows(store_url, "SELECT * FROM bags") == []
    assert store.complete(claim, a_result())
    assert len(store.segments_of(claim.analysis_id)) == 4


def test_a_lock_that_is_held_too_long_is_transient(
    store: Store, store_url: str, model: ModelFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_connection, "LOCK_TIMEOUT_S", 1)
    with (
        Store.connect(store_url) as hasty,
        locked(store_url, "LOCK TABLE recordings IN ACCESS EXCLUSIVE MODE"),
        pytest.raises(DatabaseUnavailable, match="lock timeout"),
    ):
        hasty.claim(a_claim(a_job(), model))


def test_a_statement_that_takes_too_long_is_transient(store_url: str) -> None:
    engine = store_connection.connect_engine(store_url, statement_timeout_s=1)
    with pytest.raises(DatabaseUnavailable, match="statement timeout"), database_errors("here"), engine.connect() as c:
        c.exec_driver_sql("SELECT pg_sleep(30)")
    engine.dispose()


def test_a_pool_in_use_is_transient(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_connection, "POOL_TIMEOUT_S", 0.1)
    engine = store_connection.connect_engine(store_url, pool_size=1)
    with Store(engine) as store, engine.connect(), pytest.raises(DatabaseUnavailable, match="pool is in use"):
        store.counts()


def test_a_database_that_only_reads_pauses_the_worker(store: Store, store_url: str, model: ModelFacts) -> None:
    name = urlsplit(store_url).path.removeprefix("/")
    execute(store_url, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    with Store.connect(store_url) as reading, pytest.raises(DiskFull, match="read-only"):
        reading.claim(a_claim(a_job(), model))


def test_rights_that_are_missing_are_the_operators(store_url: str) -> None:
    execute(store_url, "DROP ROLE IF EXISTS reader")
    execute(store_url, "CREATE ROLE reader LOGIN PASSWORD 'r'")
    try:
        with (
            Store.connect(changed(store_url, user="reader", password="r")) as reader,
            pytest.raises(DatabaseRefused, match="permission denied"),
        ):
            reader.counts()
    finally:
        execute(store_url, "DROP ROLE reader")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg.errors.DiskFull("no space"), DiskFull),
        (psycopg.errors.TooManyConnections("full"), DatabaseUnavailable),
        (psycopg.errors.AdminShutdown("bye"), DatabaseUnavailable),
        (psycopg.errors.CannotConnectNow("starting"), DatabaseUnavailable),
        (psycopg.errors.DeadlockDetected("two"), DatabaseUnavailable),
        (psycopg.errors.IdleInTransactionSessionTimeout("asleep"), DatabaseUnavailable),
        (psycopg.errors.OutOfMemory("oom"), DatabaseUnavailable),
        (psycopg.errors.IoError("disk"), DatabaseUnavailable),
        (psycopg.errors.InvalidPassword("no"), DatabaseRefused),
        (psycopg.errors.InvalidCatalogName("no"), DatabaseRefused),
        (psycopg.errors.UndefinedTable("no"), SchemaMismatch),
        (psycopg.errors.UndefinedColumn("no"), SchemaMismatch),
        (psycopg.errors.CheckViolation("bug"), None),
        (psycopg.errors.SyntaxError("bug"), None),
        (psycopg.InterfaceError("bug"), None),
        (ValueError("bug"), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_each_sqlstate_has_its_meaning(error: Exception, kind: type[TussisError] | None) -> None:
    fault = translated(error, "here")
    assert type(fault) is (type(None) if kind is None else kind)


def test_a_bug_is_not_taken_for_an_outage(store: Store, store_url: str, model: ModelFacts) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="analyses_coverage_check"):
        store.claim(a_claim(a_job(), model, coverage=""))
    with pytest.raises(sqlalchemy.exc.IntegrityError, match="analyses_coverage_check"):
        store.refuse(a_refusal(a_job(), coverage=""))
    # The connection that it happened on is not used on.
    assert claimed(store.claim(a_claim(a_job(), model))).number == 1


class TestTheRevision:
    def test_the_right_one(self, store: Store) -> None:
        store.verify_schema()

    def test_an_empty_database(self, database_url: str) -> None:
        with Store.connect(database_url) as store:
            with pytest.raises(SchemaMismatch, match=rf"no Tussis schema.*needs revision {SCHEMA_REVISION}.*migrate"):
                store.verify_schema()
            with pytest.raises(SchemaMismatch, match="tussis migrate"):
                store.counts()

    def test_another_one(self, store: Store, store_url: str) -> None:
        execute(store_url, "UPDATE tussis_revision SET version_num = '0042'")
        with pytest.raises(SchemaMismatch, match=rf"revision 0042, this version of Tussis needs {SCHEMA_REVISION}"):
            store.verify_schema()

    def test_one_that_was_emptied(self, store: Store, store_url: str) -> None:
        execute(store_url, "DELETE FROM tussis_revision")
        with pytest.raises(SchemaMismatch, match="no Tussis schema"):
            store.verify_schema()


def test_sessions_are_in_utc_and_say_who_they_are(store_url: str) -> None:
    engine = store_connection.connect_engine(store_url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW timezone").scalar_one() == "UTC"
        assert connection.exec_driver_sql("SHOW application_name").scalar_one() == "tussis"
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar_one() == "1min"
    engine.dispose()


def test_options_of_the_url_are_kept(store_url: str) -> None:
    engine = store_connection.connect_engine(store_url + "?options=-c%20search_path%3Dpublic,pg_temp")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW search_path").scalar_one() == "public,pg_temp"
        assert connection.exec_driver_sql("SHOW timezone").scalar_one() == "UTC"
    engine.dispose()


@contextmanager
def locked(url: str, statement: str) -> Iterator[None]:
    with psycopg.connect(url) as connection:
        connection.execute(statement.encode())
        yield
        connection.rollback()


@contextmanager
def in_thread(call: Callable[[], object]) -> Iterator[list[object]]:
    """Run ``call`` beside the block; afterwards the list holds its answer or its error."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(call())
        except TussisError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield outcome
    thread.join(60)
    assert not thread.is_alive()


def waiting_backends(url: str) -> int:
    ((count,),) = rows(
        url,
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
    )
    return int(count)
