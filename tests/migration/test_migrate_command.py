"""``tussis migrate``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from tests.support.months import month_name
from tests.support.store import execute
from tussis.producer.cli import root
from tussis.shared.store import migrate
from tussis.shared.store.partitions import MONTHS_AHEAD
from tussis.shared.store.schema import SCHEMA_REVISION

Run = Callable[..., Result]


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``tussis migrate`` on an empty database."""
    monkeypatch.setenv("TUSSIS_DATABASE_URL", database_url)
    return lambda *words: CliRunner().invoke(root, ["migrate", *words])


def test_from_nothing_to_the_newest_and_again(run: Run, database_url: str) -> None:
    told = run("--check")
    assert (told.exit_code, told.stdout) == (1, "")
    assert told.stderr == f"tussis: the database is on revision base, not {SCHEMA_REVISION}: run `tussis migrate`\n"

    told = run()
    assert (told.exit_code, told.stdout) == (0, f"base -> {SCHEMA_REVISION}\n")
    assert migrate.current(database_url) == SCHEMA_REVISION

    assert run().stdout == f"{SCHEMA_REVISION}: nothing to do\n"
    told = run("--check")
    assert (told.exit_code, told.stdout) == (0, f"{SCHEMA_REVISION}: up to date\n")


def test_back_needs_a_yes(run: Run, database_url: str) -> None:
    run()
    told = run("--to", "base")
    assert told.exit_code == 2
    assert "deletes every result" in told.stderr
    assert "--yes" in told.stderr
    assert migrate.current(database_url) == SCHEMA_REVISION

    assert run("--to", "base", "--yes").stdout == f"{SCHEMA_REVISION} -> base\n"
    assert migrate.current(database_url) is None


def test_an_unknown_revision(run: Run) -> None:
    told = run("--to", "0099")
    assert told.exit_code == 2
    assert f"no revision '0099': use one of base, {', '.join(migrate.revisions())}" in told.stderr


def test_a_database_of_a_newer_version(run: Run, database_url: str) -> None:
    run()
    execute(database_url, "UPDATE tussis_revision SET version_num = '0042'")
    for words in ([], ["--check"], ["--to", "base", "--yes"]):
        told = run(*words)
        assert told.exit_code == 1
        assert "revision 0042, which this version of Tussis does not know" in told.stderr


def test_check_goes_with_nothing_else(run: Run) -> None:
    assert run("--check", "--to", "base").exit_code == 2


def test_a_database_that_is_not_there(run: Run, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUSSIS_DATABASE_URL", database_url.rsplit("/", 1)[0] + "/nowhere")
    told = run()
    assert told.exit_code == 1
    assert told.stderr.count("\n") == 1
    assert 'database "nowhere" does not exist' in told.stderr
    assert "TUSSIS_DATABASE_URL" in told.stderr


def test_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUSSIS_DATABASE_URL", raising=False)
    told = CliRunner().invoke(root, ["migrate"])
    assert told.exit_code == 1
    assert told.stderr.startswith("tussis: TUSSIS_DATABASE_URL is not set")


def test_it_makes_the_partitions_ahead_and_says_so(run: Run, database_url: str) -> None:
    made = run().stderr.splitlines()
    assert made == [f"made the partition {month_name(database_url, -number)}" for number in range(3, MONTHS_AHEAD + 1)]
    assert run().stderr == ""

    # Also when there is nothing to upgrade.
    last = month_name(database_url, -MONTHS_AHEAD)
    execute(database_url, f"DROP TABLE {last}")
    assert run("--check").stderr == ""
    told = run()
    assert (told.stdout, told.stderr) == (f"{SCHEMA_REVISION}: nothing to do\n", f"made the partition {last}\n")
    # An older schema may have no partitions.
    assert run("--to", "base", "--yes").stderr == ""
