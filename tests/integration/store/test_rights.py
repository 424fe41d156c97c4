"""The roles of the database: every object has its rights, and nobody has more."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql
from sqlalchemy import text

from tests.support.roles import role_login
from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, execute, rows
from tussis.producer.cli import root
from tussis.shared.broker import connect
from tussis.shared.ledger import Ledger
from tussis.shared.states import AttemptOutcome
from tussis.shared.store import migrate, rights
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store
from tussis.shared.store.rights import HIDDEN_COLUMNS, RIGHTS, Role

_RELATIONS = """
SELECT relname FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT relispartition
"""
#: Sequences that belong to no identity column. An identity column needs no right.
_SEQUENCES = """
SELECT relname FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'S' AND NOT EXISTS (
    SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'i'
)
"""
_FUNCTIONS = "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"


@pytest.fixture
def login(store_url: str) -> Iterator[Callable[[Role], str]]:
    """Return the URL of the database with a new login that is a member of a role."""
    with ExitStack() as logins:
        yield lambda role: logins.enter_context(role_login(store_url, role))


def test_every_object_of_the_schema_has_its_rights(store_url: str) -> None:
    """If this fails, write a line for the new object in tussis.shared.store.rights."""
    assert {name for (name,) in rows(store_url, _RELATIONS)} == set(RIGHTS)
    assert {name for (name,) in rows(store_url, _FUNCTIONS)} == rights.PUBLIC_FUNCTIONS | set(rights.FUNCTIONS)
    assert rows(store_url, _SEQUENCES) == [], "a sequence needs a right of its own: use an identity column"


def test_the_server_has_the_rights_that_are_written(store_url: str) -> None:
    for name, written in RIGHTS.items():
        for role, privileges in (
            (Role.WORKER, written.worker),
            (Role.ANALYST_FULL, written.analyst_full),
            (Role.ANALYST, written.analyst),
        ):
            for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"):
                [(granted,)] = rows(
                    store_url,
                    f"SELECT has_any_column_privilege('{role}', '{name}', '{privilege}')"
                    if privilege in ("SELECT", "INSERT", "UPDATE", "REFERENCES")
                    else f"SELECT has_table_privilege('{role}', '{name}', '{privilege}')",
                )
                assert granted == (privilege in privileges.split(", ")), (name, role, privilege)
    for name, roles in rights.FUNCTIONS.items():
        for role in Role:
            [(granted,)] = rows(
                store_url,
                f"SELECT has_function_privilege('{role}', oid, 'EXECUTE') FROM pg_proc WHERE proname = '{name}'",
            )
            assert granted == (role in roles), (name, role)
    assert rows(store_url, "SELECT has_schema_privilege('tussis_worker', 'public', 'CREATE')") == [(False,)]


def test_a_worker_does_its_work_and_no_more(
    store_url: str, login: Callable[[Role], str], model: ModelFacts, store: Store
) -> None:
    url = login(Role.WORKER)
    with Store.connect(url) as own:
        own.verify_schema()
        own.register_model(model)
        assert own.complete(claimed(own.claim(a_claim(a_job(key="done.wav"), model))), a_result())
        again = claimed(own.claim(a_claim(a_job(key="again.wav"), model)))
        own.release(again, AttemptOutcome.TRANSIENT, "storage_unavailable", "503")
        cancelled = a_job(key="cancelled.wav")
        own.cancel([cancelled], "ops@host")
        # Its analysis is replaced: this deletes a row.
        assert own.claim(a_claim(a_job(key="cancelled.wav"), model))
    for statement in (
        "CREATE TABLE mine (x int)",
        "TRUNCATE dead_letters",
        "DROP TABLE segments",
        "ALTER TABLE jobs ADD COLUMN x int",
        "DELETE FROM recordings",
        "DELETE FROM jobs",
        "INSERT INTO model_activations (model_id, activated_by, forced) VALUES (1, 'me', true)",
        "UPDATE tussis_revision SET version_num = '0001'",
        "CREATE ROLE other SUPERUSER",
        "COPY recordings TO PROGRAM 'true'",
        "SELECT pg_read_file('/etc/passwd')",
        "SET ROLE tussis_analyst_full",
    ):
        with psycopg.connect(url, autocommit=True) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())


def test_an_analyst_sees_no_metadata_and_no_table(
    store_url: str, login: Callable[[Role], str], store: Store, model: ModelFacts
) -> None:
    job = a_job(metadata={"subject": "p-17", "site": "north"})
    assert store.complete(claimed(store.claim(a_claim(job, model))), a_result())
    with psycopg.connect(login(Role.ANALYST), autocommit=True) as connection:
        assert connection.execute("SELECT count(uri), min(site) FROM current").fetchone() == (1, "north")
        for name in RIGHTS:
            columns = [
                column
                for (column,) in rows(
                    store_url, f"SELECT attname FROM pg_attribute WHERE attrelid = '{name}'::regclass AND attnum > 0"
                )
            ]
            for column in columns:
                query = sql.SQL("SELECT {} FROM {} LIMIT 1").format(sql.Identifier(column), sql.Identifier(name))
                if RIGHTS[name].analyst and column not in HIDDEN_COLUMNS:
                    connection.execute(query)
                else:
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        connection.execute(query)
    with psycopg.connect(login(Role.ANALYST_FULL), autocommit=True) as connection:
        assert connection.execute("SELECT subject FROM current").fetchone() == ("p-17",)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM analyses")


def run(url: str, broker_url: str, *words: str) -> Result:
    return CliRunner().invoke(root, words, env={"TUSSIS_DATABASE_URL": url, "TUSSIS_BROKER_URL": broker_url})


READS: tuple[tuple[str, ...], ...] = (
    ("results",),
    ("results", "--json", "--segments"),
    ("export", "--format", "csv", "--out", "-"),
    ("failures", "list"),
    ("models", "status"),
    ("drift",),
    ("job", "00000000-0000-4000-8000-000000000000"),
)
#: Commands that write, and whether a worker's login is enough.
WRITES: tuple[tuple[tuple[str, ...], bool], ...] = (
    (("failures", "discard", "--all"), True),
    (("cancel", "--prefix", "s3://recordings/", "--yes"), True),
    (("models", "activate", "cough@1"), False),
    (("migrate", "--to", "base", "--yes"), False),
    (("retain", "--older-than", "1d", "--yes"), False),
)


def test_each_reading_command_works_with_the_login_that_the_document_names(
    store_url: str, broker_url: str, login: Callable[[Role], str], store: Store, model: ModelFacts
) -> None:
    assert store.complete(claimed(store.claim(a_claim(a_job(), model))), a_result())
    for role in (Role.WORKER, Role.ANALYST_FULL):
        url = login(role)
        for words in READS:
            ended = run(url, broker_url, *words)
            assert "permission denied" not in ended.output, (role, words, ended.output)
            assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.output
    analyst = login(Role.ANALYST)
    for words in (READS[0], READS[3]):
        ended = run(analyst, broker_url, *words)
        assert ended.exit_code == 1, ended.output
        assert len(ended.output.strip().splitlines()) == 1
        assert "permission denied" in ended.output


@pytest.mark.parametrize(("words", "enough"), WRITES)
def test_each_writing_command_needs_its_role(
    store_url: str,
    broker_url: str,
    login: Callable[[Role], str],
    store: Store,
    model: ModelFacts,
    words: tuple[str, ...],
    enough: bool,
) -> None:
    assert store.complete(claimed(store.claim(a_claim(a_job(), model))), a_result())
    store.refuse(a_refusal(a_job(key="b.wav", etag="e2")))
    execute(store_url, "UPDATE models SET last_served_at = now()")
    with connect(broker_url) as client:
        assert Ledger(client).open(a_job(key="open.wav"))
    refused = (Role.ANALYST, Role.ANALYST_FULL) if enough else tuple(Role)
    for role in refused:
        ended = run(login(role), broker_url, *words)
        assert ended.exit_code == 1, ended.output
        assert len(ended.stderr.strip().splitlines()) == 1, ended.output
        assert re.search("permission denied|must be owner", ended.stderr), ended.output
    ended = run(login(Role.WORKER) if enough else store_url, broker_url, *words)
    assert ended.exit_code == 0, ended.output


def test_a_login_that_may_not_create_roles_still_migrates(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = f"test_{uuid.uuid4().hex}"
    execute(database_url, f"CREATE ROLE {owner} LOGIN PASSWORD 'pw'")
    execute(database_url, f"GRANT ALL ON SCHEMA public TO {owner}")
    parts = urlsplit(database_url)
    url = parts._replace(netloc=f"{owner}:pw@{parts.hostname}:{parts.port}").geturl()
    granted = "SELECT has_table_privilege('tussis_worker', 'jobs', 'INSERT')"
    try:
        # As if the server had none of the roles.
        monkeypatch.setattr(rights, "_EXISTING_ROLES", text(f"{rights._EXISTING_ROLES} AND false"))
        told = run(url, "redis://127.0.0.1:1/0", "migrate")
        assert told.exit_code == 0, told.output
        assert "may not create the roles tussis_worker, tussis_analyst, tussis_analyst_full" in told.stderr
        monkeypatch.undo()
        assert rows(database_url, granted) == [(False,)]
        told = run(url, "redis://127.0.0.1:1/0", "migrate")
        assert (told.exit_code, told.output) == (0, f"{migrate.head()}: nothing to do\n")
        assert rows(database_url, granted) == [(True,)]
    finally:
        execute(database_url, f"DROP OWNED BY {owner}")
        execute(database_url, f"DROP ROLE {owner}")


def test_the_command_makes_a_login(store_url: str) -> None:
    name = f"test_{uuid.uuid4().hex}"
    words = ("database", "login", name, "--role")

    def make(role: str, password: str, url: str = store_url) -> Result:
        return CliRunner().invoke(root, [*words, role], input=password, env={"TUSSIS_DATABASE_URL": url})

    try:
        assert make("worker", "short\n").exit_code == 2
        assert make("worker", "a long password\n").output == f"{name}\tworker\n"
        parts = urlsplit(store_url)
        url = parts._replace(netloc=f"{name}:a%20long%20password@{parts.hostname}:{parts.port}").geturl()
        with Store.connect(url) as own:
            own.verify_schema()
        refused = make("worker", "a long password\n", url)
        assert refused.exit_code == 1
        assert "permission denied" in refused.output
        assert len(refused.output.splitlines()) == 1
    finally:
        execute(store_url, f"DROP ROLE {name}")


def test_a_login_changes_its_role_and_password(store_url: str, login: Callable[[Role], str]) -> None:
    url = login(Role.WORKER)
    name: Any = urlsplit(url).username
    migrate.make_login(store_url, name, Role.ANALYST, "it's secret")
    with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT * FROM jobs")
    migrate.make_login(store_url, name, Role.ANALYST, "another")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)


def test_a_downgrade_revokes_the_rights_and_keeps_the_roles(store_url: str) -> None:
    migrate.downgrade(store_url, "0012")
    assert rows(store_url, "SELECT has_table_privilege('tussis_worker', 'jobs', 'SELECT')") == [(False,)]
    migrate.upgrade(store_url, "0013")
    assert rows(store_url, "SELECT has_table_privilege('tussis_worker', 'jobs', 'SELECT')") == [(True,)]
