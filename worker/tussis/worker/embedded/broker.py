"""The embedded broker: Valkey with the functions of Tussis, an append-only file and an fsync after every write."""

from __future__ import annotations

import os
from contextlib import suppress

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tussis.shared.broker_functions import load
from tussis.worker.embedded.binaries import valkey_server
from tussis.worker.embedded.folder import Folder
from tussis.worker.embedded.ports import LOOPBACK
from tussis.worker.embedded.process import Command, StopStep
from tussis.worker.embedded.server import EmbeddedServer

# Relative names only: the server runs in its folder, and the path of the folder may contain any character.
CONFIGURATION = """\
bind {host}
port {port}
requirepass {password}
dir .
databases {databases}
# An acknowledged write survives kill -9 (everysec lost 706 of 20,492, no file lost all).
appendonly yes
appendfsync always
save ""
maxmemory-policy noeviction
"""
#: Number of logical databases. Each test uses an empty one.
DATABASES = 64


class Broker(EmbeddedServer):
    """Valkey on loopback, with a password."""

    name = "broker"

    def __init__(self, folder: Folder) -> None:
        super().__init__(folder)
        self._password = folder.credentials.broker_password

    @property
    def url(self) -> str:
        """``redis://:password@127.0.0.1:port/0``."""
        return f"redis://:{self._password}@{LOOPBACK}:{self.port}/0"

    def prepare(self) -> None:
        self._folder.subfolder(self.name)

    def command(self, ports: tuple[int, ...]) -> Command:
        home = self._folder.subfolder(self.name)
        text = CONFIGURATION.format(host=LOOPBACK, port=ports[0], password=self._password, databases=DATABASES)
        configuration = home / "valkey.conf"
        configuration.unlink(missing_ok=True)
        with open(os.open(configuration, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(text)
        return Command(
            name=self.name,
            argv=(str(valkey_server()), configuration.name),
            cwd=home,
            log=self.log,
            stop=(StopStep("SIGTERM", 10.0),),
            death_signal="SIGTERM",
        )

    def answers(self) -> bool:
        try:
            with redis.Redis(
                host=LOOPBACK,
                port=self.port,
                password=self._password,
                socket_connect_timeout=2,
                socket_timeout=2,
                retry=Retry(NoBackoff(), 0),
            ) as client:
                client.ping()
                with suppress(redis.ResponseError):  # a full broker with functions of an older version
                    load(client)
                return True
        except (redis.ConnectionError, redis.TimeoutError):  # not listening yet, or loading the append-only file
            return False
