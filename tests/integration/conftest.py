"""Fixtures of the tests that use the servers: a connection to the broker, and the ledger on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tussis.shared.broker import connect
from tussis.shared.ledger import Ledger


@pytest.fixture
def client(broker_url: str) -> Iterator[Any]:
    client = connect(broker_url)
    yield client
    client.close()


@pytest.fixture
def ledger(client: Any) -> Ledger:
    return Ledger(client)
