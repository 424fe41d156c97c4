"""The function library: loaded once, again after a loss, never replaced by an older one, and enough for a producer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from click.testing import CliRunner

from tests.support.brokers import own_broker
from tests.support.outcomes import a_job
from tussis.producer.cli import root
from tussis.shared import broker_functions
from tussis.shared.broker import broker_errors, connect
from tussis.shared.broker_functions import DIGEST, FUNCTIONS, LIBRARY, VERSION, load, loaded_version
from tussis.shared.errors import BrokerNotPrepared, BrokerRefused
from tussis.shared.ledger import Ledger, prepare_opening

ROOT = Path(__file__).parents[3]
PRODUCER = re.search(
    r"^ACL SETUSER producer on >PASSWORD (.*)$", (ROOT / "docs" / "wire-format.md").read_text("utf-8"), re.MULTILINE
)


@pytest.fixture
def url() -> Iterator[str]:
    """A broker of our own, without functions."""
    with own_broker() as broker:
        with connect(broker.url) as client:
            client.function_flush()
        yield broker.url


def login(url: str, name: str, rights: str) -> str:
    admin: Any
    with redis.Redis.from_url(url) as admin:
        admin.execute_command("ACL", "SETUSER", name, "reset", "on", ">pw", *rights.split())
    parts = urlsplit(url)
    return parts._replace(netloc=f"{name}:pw@{parts.hostname}:{parts.port}").geturl()


def test_each_change_of_the_functions_has_a_new_version() -> None:
    """If this fails, raise VERSION (unless this version is not released yet), and put the digest here."""
    assert (VERSION, DIGEST) == (1, "896b3b57e05d8b27797646d42165f5de06844bf8bd45634fa06b7f50c88e5dd1")


def test_the_product_sends_no_script() -> None:
    """Every step is a function: a login needs no right to run scripts."""
    for folder in ("producer", "shared", "worker"):
        for path in (ROOT / folder).rglob("*.py"):
            sent = re.findall(r"register_script|\.evalsha\(|client\.eval\(|\"EVAL", path.read_text("utf-8"))
            assert sent == [], path


def test_whoever_may_load_loads(url: str) -> None:
    client = connect(url)
    assert loaded_version(client) is None
    assert Ledger(client).open(a_job())
    assert loaded_version(client) == VERSION
    assert not load(client)
    # Jobs that were sent before the broker lost its functions.
    client.function_flush()
    ledger = Ledger(client)
    assert ledger.send_prepared(prepare_opening([a_job()])).answers() == [True]
    client.close()


def test_a_producer_without_functions_is_told_what_to_do_and_goes_on_after_a_worker(url: str) -> None:
    assert PRODUCER
    own = connect(login(url, "producer", PRODUCER[1]))
    ledger, job = Ledger(own, "here"), a_job()
    for _ in range(2):
        with pytest.raises(BrokerNotPrepared, match=r"start a worker.*tussis broker load"):
            ledger.open(job)
        with pytest.raises(BrokerNotPrepared):
            ledger.send_prepared(prepare_opening([job])).answers()
    with connect(url) as client:
        assert load(client)
    assert ledger.open(job)
    own.close()


def test_an_older_library_is_replaced_and_a_newer_one_is_not(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client: Any = connect(url)
    newer = LIBRARY.replace(f"'{VERSION} {DIGEST}'", f"'{VERSION + 1} {DIGEST}'")
    client.function_load(newer)
    assert not load(client)
    assert loaded_version(client) == VERSION + 1
    assert Ledger(client).open(a_job()), "the functions keep their names and forms"
    client.function_load(LIBRARY.replace(f"'{VERSION} {DIGEST}'", "'0 other'"), replace=True)
    assert load(client)
    assert loaded_version(client) == VERSION
    # A broker whose newer library has given up a function.
    client.function_load(newer.replace("'tussis_open'", "'tussis_open_2'"), replace=True)
    with pytest.raises(BrokerNotPrepared):
        Ledger(client).open(a_job())
    assert loaded_version(client) == VERSION + 1
    client.close()


def test_tussis_broker_load(url: str) -> None:
    def run(address: str) -> tuple[int, str]:
        ended = CliRunner().invoke(root, ["broker", "load"], env={"TUSSIS_BROKER_URL": address})
        return ended.exit_code, ended.output.strip()

    lesser = login(url, "lesser", "resetkeys ~tussis.* -@all +fcall +ping +client|setinfo")
    status, told = run(lesser)
    assert status == 1
    assert "tussis broker load" in told
    assert run(login(url, "loader", "resetkeys -@all +fcall +function|load +ping +client|setinfo")) == (
        0,
        f"none -> {VERSION}",
    )
    assert run(url) == (0, f"{VERSION}: nothing to do")
    with connect(url) as client:
        client.function_load(LIBRARY.replace(f"'{VERSION} {DIGEST}'", "'0 other'"), replace=True)
    status, told = run(lesser)
    assert status == 1
    assert "+function|load" in told


def test_a_login_without_the_right_to_functions_is_one_line(url: str) -> None:
    client = connect(login(url, "older", "resetkeys ~tussis.* -@all +eval +hsetnx +zadd +lpush +time +ping"))
    with pytest.raises(BrokerRefused, match="grant it to the login"), broker_errors("here"):
        broker_functions.call(client, "tussis_open", ["a", "b"], [])
    client.close()


@pytest.mark.parametrize(
    "command",
    [
        ("EVAL", "while true do end", 0),
        ("EVALSHA", "0" * 40, 0),
        ("SCRIPT", "LOAD", "return 1"),
        ("FUNCTION", "LOAD", "REPLACE", LIBRARY),
        ("FUNCTION", "FLUSH"),
        ("FUNCTION", "DELETE", "tussis"),
        ("KEYS", "*"),
        ("SCAN", 0),
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("GET", "tussis.outcome:x"),
        ("XRANGE", "tussis.outcomes", "-", "+"),
        ("HGET", "tussis.ledger", "x"),
        ("DEL", "tussis.ledger"),
        # Functions that are not for producers have no more rights than their caller.
        ("FCALL", "tussis_close", 8, *("tussis.ledger",) * 8, "x", "", "", "1", "1"),
        ("FCALL", "tussis_settle", 2, "tussis.ledger", "tussis.open", "x"),
    ],
    ids=lambda command: " ".join(map(str, command[:2]))[:30],
)
def test_a_producer_s_login_can_do_nothing_else(broker_url: str, command: tuple[Any, ...]) -> None:
    assert PRODUCER
    with connect(broker_url) as admin:
        load(admin)
    own: Any = connect(login(broker_url, "fewer", PRODUCER[1] + " +select"))
    assert Ledger(own).open(a_job())
    with pytest.raises(redis.ResponseError, match=r"(?i)permission"):
        own.execute_command(*command)
    own.close()
    root_client: Any = connect(broker_url)
    root_client.execute_command("ACL", "DELUSER", "fewer")
    root_client.close()


def test_every_function_is_registered(broker_url: str) -> None:
    with connect(broker_url) as client:
        load(client)
        (library,) = client.function_list(library="tussis")
    functions = library[library.index(b"functions") + 1]
    names = {dict(zip(one[::2], one[1::2], strict=True))[b"name"].decode() for one in functions}
    assert names == {*FUNCTIONS, "tussis_version"}
