"""Brokers for one test. A test that changes the role or the memory limit would disturb the session's broker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis

from tests.soak.tcp_proxy import TcpProxy
from tests.support.servers import server_folder
from tests.support.waiting import wait_until
from tussis.worker.embedded.broker import Broker
from tussis.worker.embedded.folder import Folder
from tussis.worker.embedded.ports import LOOPBACK

_PASSWORD = "shared-by-a-pair"


@contextmanager
def own_broker() -> Iterator[Broker]:
    """Start an empty broker."""
    with server_folder() as path:
        folder = Folder(path)
        broker = Broker(folder)
        try:
            broker.start()
            yield broker
        finally:
            broker.stop()
            folder.release()


@dataclass(frozen=True)
class Pair:
    """A primary and its replica behind one address, as a managed broker has them."""

    url: str
    """The address."""
    first: Any
    """A client of the server that is the primary at first."""
    second: Any
    proxy: TcpProxy

    def fail_over(self) -> None:
        """Do a planned failover: the replica becomes the primary. New connections go to it; old ones stay."""
        # Stop writes, so that the replica can catch up with the primary.
        self.first.client_pause(60_000, all=False)
        offset = self.first.info("replication")["master_repl_offset"]
        wait_until(lambda: self.second.info("replication")["slave_repl_offset"] >= offset, 10, "the replica to follow")
        self.second.replicaof("NO", "ONE")
        self.proxy.switch(LOOPBACK, _port(self.second))
        self.first.replicaof(LOOPBACK, _port(self.second))
        wait_until(lambda: self.first.info("replication")["role"] == "slave", 10, "the old primary to be a replica")
        self.first.client_unpause()


@contextmanager
def broker_pair() -> Iterator[Pair]:
    """Two running brokers, the second a replica of the first."""
    with own_broker() as one, own_broker() as two:
        first, second = redis.Redis.from_url(one.url), redis.Redis.from_url(two.url)
        for client in (first, second):
            client.config_set("masterauth", _PASSWORD)
            client.config_set("requirepass", _PASSWORD)
            client.connection_pool.connection_kwargs["password"] = _PASSWORD
        second.replicaof(LOOPBACK, _port(first))
        wait_until(lambda: second.info("replication")["master_link_status"] == "up", 20, "the replica to follow")
        with TcpProxy(LOOPBACK, _port(first)) as proxy:
            yield Pair(f"redis://:{_PASSWORD}@{LOOPBACK}:{proxy.port}/0", first, second, proxy)
        first.close()
        second.close()


def _port(client: Any) -> int:
    port: int = client.connection_pool.connection_kwargs["port"]
    return port
