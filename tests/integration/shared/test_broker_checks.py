"""The checks of the broker before a worker starts, and the output of `tussis status` about it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.brokers import own_broker
from tests.support.deployment import Deployment
from tussis.shared.broker import broker_errors, connect
from tussis.shared.broker_checks import check_worker_rights, risks_of
from tussis.shared.errors import BrokerRefused

OPERATE = Path(__file__).parents[3] / "docs" / "operate.md"


def documented_rights() -> list[str]:
    """Return the rights of a worker's login in docs/operate.md."""
    found = re.search(r"^ACL SETUSER worker on >PASSWORD (.*)$", OPERATE.read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    return found[1].split()


def login(url: str, rights: list[str]) -> Any:
    """Return a client with a login that has these rights."""
    admin: Any = connect(url)
    admin.execute_command("ACL", "SETUSER", "worker", "reset", "on", ">pw", *rights)
    admin.close()
    parts = urlsplit(url)
    return connect(parts._replace(netloc=f"worker:pw@{parts.hostname}:{parts.port}").geturl())


def test_the_documented_login_of_a_worker_has_every_right_that_is_checked() -> None:
    with own_broker() as broker:
        client = login(broker.url, documented_rights())
        check_worker_rights(client)
        assert risks_of(client) == []
        client.close()


@pytest.mark.parametrize("right", ["+brpop", "+zrange", "+hset", "+fcall", "+llen", "+expire"])
def test_a_right_that_is_missing_is_one_line(right: str) -> None:
    with own_broker() as broker:
        client = login(broker.url, [word for word in documented_rights() if word != right])
        with pytest.raises(BrokerRefused, match="grant it to the login") as refused, broker_errors("redis://here"):
            check_worker_rights(client)
        assert right.removeprefix("+") in str(refused.value)
        assert "\n" not in str(refused.value)
        client.close()


def test_a_broker_that_may_lose_jobs_is_named(deployment: Deployment) -> None:
    with own_broker() as broker:
        client = connect(broker.url)
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("appendonly", "no")
        deployment.environment["TUSSIS_BROKER_URL"] = broker.url
        asked = deployment.tussis("status")
        assert asked.wait(60) == 0
        told = [line for line in asked.stdout if line.startswith("broker: ")]
        assert len(told) == 2
        assert "allkeys-lru" in told[0]
        assert "appendonly yes" in told[1]
        worker = deployment.start_worker(concurrency=1)
        event = worker.wait_for_event("broker_may_lose_jobs", 60)
        assert "allkeys-lru" in event["reason"]
        worker.end()
        client.close()
