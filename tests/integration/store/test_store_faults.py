"""Every error of the database becomes an error of Tussis, and the pool recovers."""

from __future__ import annotations

import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from tests.soak.tcp_proxy import TcpProxy
from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, execute, rows
from tests.support.waiting import PATIENCE, wait_until
from tussis.shared.errors import (
    DatabaseFault,
    DatabaseReadOnly,
    DatabaseRefused,
    DatabaseUnavailable,
    OperatorError,
    SchemaMismatch,
    SettingsInvalid,
    TussisError,
)
from tussis.shared.store import connection as store_connection
from tussis.shared.store import migrate
from tussis.shared.store.faults import database_errors
from tussis.shared.store.one_statement import Statement, run_statement
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store
from tussis.shared.store.schema import SCHEMA_REVISION
from tussis.worker.embedded.servers import Servers


def changed(url: str, **parts: str) -> str:
    """Return the URL with another user, password, host, port or path."""
    old = urlsplit(url)
    user, password = parts.get("user", old.username), parts.get("password", old.password)
    host, port = parts.get("host", old.hostname), parts.get("port", old.port)
    return urlunsplit(old._replace(netloc=f"{user}:{password}@{host}:{port}", path=parts.get("path", old.path)))


OTHER_BACKENDS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def kill_backends(url: str) -> None:
    """End every other connection to the database, as an administrator would, and wait until they are gone."""
    execute(url, f"SELECT pg_terminate_backend(pid) {OTHER_BACKENDS}")
    wait_until(lambda: rows(url, f"SELECT count(*) {OTHER_BACKENDS}") == [(0,)], 30, "the backends to end")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"password": "wrong"}, DatabaseRefused, "password authentication failed"),
        ({"user": "nobody"}, DatabaseRefused, "password authentication failed"),
        ({"path": "/nowhere"}, DatabaseRefused, 'database "nowhere" does not exist'),
        ({"host": "no-such-host.invalid"}, DatabaseUnavailable, "start it, or check TUSSIS_DATABASE_URL"),
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


@pytest.mark.parametrize("url", ["mysql://a:secret@b/c", "", "postgresql://a:secret@b:port/c"])
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
            # One check of the pooled connection, then five seconds for a new one.
            assert time.monotonic() - began < 8 * PATIENCE

            proxy.resume()
            assert store.counts().succeeded == 0


def test_killed_connections_are_replaced(store: Store, store_url: str, model: ModelFacts) -> None:
    claim = claimed(store.claim(a_claim(a_job(), model)))
    kill_backends(store_url)
    # The pool checks a connection before use.
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


def test_a_lock_that_is_held_too_long_is_transient(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_connection, "LOCK_TIMEOUT_S", 1)
    with (
        Store.connect(store_url) as hasty,
        locked(store_url, "LOCK TABLE recordings IN ACCESS EXCLUSIVE MODE"),
        pytest.raises(DatabaseUnavailable, match="lock timeout"),
    ):
        hasty.refuse(a_refusal(a_job()))


def test_a_statement_that_takes_too_long_is_transient(store_url: str) -> None:
    engine = store_connection.connect_engine(store_url, statement_timeout_s=1)
    with pytest.raises(DatabaseUnavailable, match="statement timeout"), database_errors("here"), engine.connect() as c:
        c.exec_driver_sql("SELECT pg_sleep(30)")
    engine.dispose()


def test_a_pool_in_use_is_transient(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_connection, "POOL_TIMEOUT_S", 0.1)
    engine = store_connection.connect_engine(store_url, pool_size=1)
    with (
        Store(engine) as store,
        engine.connect(),
        pytest.raises(DatabaseUnavailable, match="all connections of the pool are in use"),
    ):
        store.counts()


@pytest.mark.parametrize("how", ["claim", "refuse"])
def test_a_database_that_only_reads_is_left_for_the_next_connection(
    store: Store, store_url: str, model: ModelFacts, how: str
) -> None:
    """Given a primary that was replaced, when it refuses to write, then the next try makes a new connection and finds
    the new primary."""
    name = urlsplit(store_url).path.removeprefix("/")
    execute(store_url, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')

    def write() -> object:
        if how == "claim":
            return store.claim(a_claim(a_job(), model))
        return store.refuse(a_refusal(a_job()))

    store.close()
    with pytest.raises(DatabaseReadOnly, match=r"accepts no writes.*read-only") as caught:
        write()
    assert isinstance(caught.value, DatabaseUnavailable)
    elsewhere = changed(store_url, path="/postgres")
    execute(elsewhere, f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    assert write()


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


def test_what_concerns_one_recording_is_no_outage_and_no_bug(store: Store, model: ModelFacts) -> None:
    for _ in range(2):
        with pytest.raises(DatabaseFault, match=r"analyses_coverage_check.*SQLSTATE 23514"):
            store.claim(a_claim(a_job(), model, coverage=""))
        with pytest.raises(DatabaseFault, match=r"analyses_coverage_check.*SQLSTATE 23514"):
            store.refuse(a_refusal(a_job(), coverage=""))
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


def test_times_are_in_utc_and_transactions_bounded_whatever_the_session_says(store_url: str) -> None:
    name = urlsplit(store_url).path.removeprefix("/")
    execute(store_url, f"ALTER DATABASE \"{name}\" SET timezone = 'Asia/Kathmandu'")
    engine = store_connection.connect_engine(store_url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW timezone").scalar_one() == "Asia/Kathmandu"
        moment = connection.exec_driver_sql("SELECT timestamptz '2026-01-01 05:45:00.25+05:45'").scalar_one()
        assert moment.isoformat() == "2026-01-01T00:00:00.250000+00:00"
        assert connection.exec_driver_sql("SHOW application_name").scalar_one() == "tussis"
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar_one() == "1min"
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar_one() == "10s"
        assert connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar_one() == "1min"
    # No setting stays in the session: the next client may get it.
    assert run_statement(engine, STATEMENT, {}) == ("0", datetime(2026, 1, 1, tzinfo=UTC))
    engine.dispose()


STATEMENT = Statement("SELECT current_setting('statement_timeout'), timestamptz '2026-01-01 00:00:00Z'")


def test_text_is_utf_8_whatever_the_environment_says(
    store_url: str, monkeypatch: pytest.MonkeyPatch, model: ModelFacts
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with Store.connect(store_url) as other:
        job = a_job(key="жаба 🐸.wav")
        assert claimed(other.claim(a_claim(job, model))).number == 1
        answer = other.job(job.job_id)
    assert answer is not None
    assert answer.analysis.key == job.key


def test_options_of_the_url_are_kept(store_url: str) -> None:
    engine = store_connection.connect_engine(
        store_url + "?options=-c%20search_path%3Dpublic,pg_temp&application_name=ours"
    )
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW search_path").scalar_one() == "public,pg_temp"
        assert connection.exec_driver_sql("SHOW application_name").scalar_one() == "ours"
    engine.dispose()


@pytest.mark.parametrize(("direct", "prepared"), [(False, 0), (True, 1)])
def test_statements_are_prepared_on_a_direct_connection_only(store_url: str, direct: bool, prepared: int) -> None:
    engine = store_connection.connect_engine(store_url, direct=direct)
    for _ in range(10):
        run_statement(engine, STATEMENT, {})
    with engine.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%%2026-%%'"
        )
        assert found.scalar_one() == prepared
    engine.dispose()


def test_a_step_that_waits_for_a_lock_ends_on_both_sides(
    store_url: str, model: ModelFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has no timeout for a single statement: the client stops waiting, and cancels the statement."""
    monkeypatch.setattr(store_connection, "ANSWER_SLACK_S", 1)
    with (
        Store.connect(store_url, statement_timeout_s=1) as hasty,
        locked(store_url, "LOCK TABLE recordings IN ACCESS EXCLUSIVE MODE"),
    ):
        with pytest.raises(DatabaseUnavailable, match="no answer within 2 s"):
            hasty.claim(a_claim(a_job(), model))
        wait_until(lambda: waiting_backends(store_url) == 0, 10, "the server to leave the statement")
    assert rows(store_url, "SELECT * FROM recordings") == []


class TestSeveralHosts:
    def test_a_dead_one_is_passed_over(self, store_url: str, unused_port: int) -> None:
        parts = urlsplit(store_url)
        url = changed(store_url, host=f"127.0.0.1:{unused_port},127.0.0.1")
        with Store.connect(url + "?target_session_attrs=read-write") as store:
            store.verify_schema()
            assert store.place == f"127.0.0.1:{unused_port},127.0.0.1:{parts.port}{parts.path}"

    def test_one_that_only_reads_is_passed_over(self, store: Store, store_url: str, model: ModelFacts) -> None:
        """Two names of one server: the first becomes read-only while a connection is open, the second one is used."""
        name = urlsplit(store_url).path.removeprefix("/")
        execute(store_url, "DROP ROLE IF EXISTS wandering")
        execute(store_url, "CREATE ROLE wandering SUPERUSER LOGIN PASSWORD 'w'")
        try:
            url = changed(store_url, user="wandering", password="w", host="127.0.0.1,127.0.0.1")
            # psycopg uses the first host that can write; a read-only role cannot.
            with Store.connect(url.replace(",127.0.0.1:", ":", 1) + "?target_session_attrs=read-write") as writing:
                claimed(writing.claim(a_claim(a_job(), model)))
                execute(store_url, "ALTER ROLE wandering SET default_transaction_read_only = on")
                kill_backends(store_url)
                with pytest.raises(DatabaseUnavailable, match="session is read-only"):
                    writing.claim(a_claim(a_job(key="b.wav"), model))
                execute(store_url, "ALTER ROLE wandering RESET default_transaction_read_only")
                claimed(writing.claim(a_claim(a_job(key="b.wav"), model)))
        finally:
            execute(store_url, f'REVOKE ALL ON DATABASE "{name}" FROM wandering')
            execute(store_url, "DROP ROLE wandering")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("sslmode=alwys", "alwys"),
        ("target_session_attrs=primry", "primry"),
        ("connect_timeout=soon", "connect_timeout is not a number"),
        ("sslmode=require", "does not support SSL"),
        ("service=nowhere", "nowhere"),
        ("port=1,2,3&host=a,b", "3 hosts|port numbers"),
    ],
)
def test_a_wrong_option_is_the_operators_and_one_line(store_url: str, option: str, words: str) -> None:
    with pytest.raises(OperatorError, match=words) as caught, Store.connect(f"{store_url}?{option}") as store:
        store.verify_schema()
    assert "\n" not in str(caught.value)
    assert str(urlsplit(store_url).password) not in str(caught.value)


@pytest.fixture
def latin_url(servers: Servers) -> Iterator[str]:
    """A database that holds only the characters of Western Europe."""
    url = servers.endpoints.database_url
    name = f"latin_{uuid.uuid4().hex}"
    execute(
        url,
        f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0",
    )
    yield changed(url, path=f"/{name}")
    execute(url, f"DROP DATABASE {name} WITH (FORCE)")


def test_a_database_that_cannot_hold_every_key_is_refused(latin_url: str) -> None:
    refused = r"has the encoding LATIN1.*UTF8.*CREATE DATABASE .* ENCODING 'UTF8' TEMPLATE template0"
    with pytest.raises(SchemaMismatch, match=refused):
        migrate.upgrade(latin_url)
    assert rows(latin_url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    with Store.connect(latin_url) as store, pytest.raises(SchemaMismatch, match=refused):
        store.verify_schema()


@contextmanager
def locked(url: str, statement: str) -> Iterator[None]:
    with psycopg.connect(url) as connection:
        connection.execute(statement.encode())
        yield
        connection.rollback()


@contextmanager
def in_thread(call: Callable[[], object]) -> Iterator[list[object]]:
    """Run ``call`` in parallel to the block. Afterwards the list holds its answer or its error."""
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
