"""TUSSIS_DATABASE_URL means what it means to libpq, and is shown without its password."""

from __future__ import annotations

import pytest

from tussis.shared.errors import SettingsInvalid
from tussis.shared.store.connection import connect_engine, place


@pytest.fixture(autouse=True)
def no_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:secret@host:5433/db", "host:5433/db"),
        ("postgres://u:secret@host/db", "host:5432/db"),
        ("postgresql+psycopg://u:secret@host/db", "host:5432/db"),
        ("postgresql://u:secret@h1:5432,h2:5433/db?target_session_attrs=read-write", "h1:5432,h2:5433/db"),
        ("postgresql://u:secret@h1,h2/db", "h1:5432,h2:5432/db"),
        ("host=h1,h2 port=6000 dbname=db password=secret", "h1:6000,h2:6000/db"),
        ("postgresql:///db?host=/var/run/postgresql", "local socket /var/run/postgresql:5432/db"),
        ("postgresql://u:secret@%2Fvar%2Frun/db", "local socket /var/run:5432/db"),
        ("postgresql:///db", "local socket:5432/db"),
        ("postgresql://u:secret@[2001:db8::1]:5433/db", "[2001:db8::1]:5433/db"),
        ("postgresql://u:secret@[::1],h2:1/db", "[::1]:5432,h2:1/db"),
        ("postgresql://?service=clinic", "service clinic"),
        ("service=clinic dbname=db", "service clinic/db"),
        ("postgresql://u:s%25e%40c%2Fret@host/db?sslmode=verify-full&sslrootcert=/etc/ca.pem", "host:5432/db"),
        ("postgresql://u@host", "host:5432/u"),
    ],
)
def test_what_libpq_takes_is_taken(url: str, shown: str) -> None:
    engine = connect_engine(url)
    assert place(engine.url) == shown
    assert "secret" not in str(engine.url)


def test_what_the_url_leaves_out_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "elsewhere")
    monkeypatch.setenv("PGPORT", "6000")
    assert place(connect_engine("dbname=db").url) == "elsewhere:6000/db"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://u:secret@host/db", "not a PostgreSQL URL"),
        ("localhost;5432", "not a PostgreSQL URL"),
        ("", "not a PostgreSQL URL"),
        ("postgresql://u:secret@host:port/db", "not a PostgreSQL URL"),
        ("postgresql://u:%zzsecret@host/db", "not a PostgreSQL URL"),
        ("postgresql://u:sec/secret@host/db", "%2F for a slash in the password"),
        ("postgresql://u:12/secret@host/db", "%2F for a slash in the password"),
        ("postgresql://u:secret@host/db?sslmod=require", "option that libpq does not know: sslmod"),
        ("host=host passwrd=secret", "option that libpq does not know: passwrd"),
        ("postgresql://u:secret\x00@host/db", "not a PostgreSQL URL"),
        ("postgresql://u:secret\ud800@host/db", "not a PostgreSQL URL"),
    ],
)
def test_what_it_does_not_take_is_one_line_without_the_password(url: str, words: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        connect_engine(url)
    message = str(refused.value)
    assert words in message
    assert "TUSSIS_DATABASE_URL" in message
    assert "secret" not in message
    assert "\n" not in message
