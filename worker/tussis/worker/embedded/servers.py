"""The three embedded servers together: one folder, one owner. They start and stop in parallel."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tussis.shared.errors import ServerFailed
from tussis.worker.embedded.broker import Broker
from tussis.worker.embedded.folder import Folder
from tussis.worker.embedded.postgres import Postgres
from tussis.worker.embedded.process import Command, GuardedProcess
from tussis.worker.embedded.s3 import REGION, ObjectStore
from tussis.worker.embedded.server import EmbeddedServer


@dataclass(frozen=True)
class Endpoints:
    """The addresses of the servers, and the credentials for them."""

    database_url: str
    broker_url: str
    s3_endpoint_url: str
    s3_access_key: str
    s3_secret_key: str
    s3_region: str

    def environment(self) -> dict[str, str]:
        """The environment variables for a process that uses these servers."""
        return {
            "TUSSIS_DATABASE_URL": self.database_url,
            "TUSSIS_DATABASE_DIRECT": "true",
            "TUSSIS_BROKER_URL": self.broker_url,
            "TUSSIS_S3_ENDPOINT_URL": self.s3_endpoint_url,
            "AWS_ACCESS_KEY_ID": self.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": self.s3_secret_key,
            # The shell may have a session token, which belongs to other keys.
            "AWS_SESSION_TOKEN": "",
            "AWS_DEFAULT_REGION": self.s3_region,
        }


class Servers:
    """PostgreSQL, the broker and the S3 store, for the time of a ``with`` block.

    They always stop when the block ends, also after an error, and when this process dies, by any signal. Their data
    stays in the folder for the next run.

    Args:
        folder: the folder for data, logs and passwords; created if it does not exist.

    Raises (on entering):
        NotInstalled: a wheel is missing.
        DiskFull: the disk of the folder is full.
        ServerFailed: the folder cannot be used or is in use, or a server does not start.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._owner = os.getpid()
        self._held: Folder | None = None

    def __enter__(self) -> Self:
        self._held = Folder(self.folder)
        self.postgres = Postgres(self._held)
        self.broker = Broker(self._held)
        self.s3 = ObjectStore(self._held)
        try:
            self._start_all()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() == self._owner:  # a forked process that leaves the block must not stop the servers of its parent
            self._close()

    @property
    def endpoints(self) -> Endpoints:
        """Addresses and credentials. They stay valid over restarts within the block."""
        if self._held is None:
            raise ServerFailed("the embedded servers are not running")
        credentials = self._held.credentials
        return Endpoints(
            database_url=self.postgres.url,
            broker_url=self.broker.url,
            s3_endpoint_url=self.s3.url,
            s3_access_key=credentials.s3_access_key,
            s3_secret_key=credentials.s3_secret_key,
            s3_region=REGION,
        )

    def run_beside(self, command: Command) -> GuardedProcess:
        """Start another process under a guard. It ends with its owner, and holds the lock of the folder until its end.

        Stop it before the block ends. Raises :class:`ServerFailed` when it cannot be started.
        """
        if self._held is None:
            raise ServerFailed("the embedded servers are not running")
        return GuardedProcess(command, self._held.lock)

    @property
    def _all(self) -> tuple[EmbeddedServer, ...]:
        return (self.postgres, self.broker, self.s3)

    def _start_all(self) -> None:
        with ThreadPoolExecutor(len(self._all), thread_name_prefix="tussis-servers") as threads:
            starts = [threads.submit(server.start) for server in self._all]
            try:
                for start in starts:
                    start.result()
            except BaseException:  # also Ctrl-C: cancel the other starts
                for server in self._all:
                    server.cancel()
                raise

    def _close(self) -> None:
        if self._held is None:
            return
        held, self._held = self._held, None
        try:
            for server in self._all:
                server.ask_to_stop()
            for server in self._all:
                server.stop()
        finally:
            held.release()
