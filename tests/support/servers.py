"""Fixtures on real servers: one set per test session; a new database, broker database and bucket per test."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import boto3
import psycopg
import pytest
import redis
from botocore.config import Config
from psycopg import sql

from tussis.worker.embedded.broker import DATABASES
from tussis.worker.embedded.servers import Endpoints, Servers

_broker_databases = itertools.cycle(range(1, DATABASES))


@contextmanager
def server_folder() -> Iterator[Path]:
    """Create a folder for servers and remove it at the end.

    pytest's own folder is not accessible to the user that root runs PostgreSQL as.
    """
    folder = Path(tempfile.mkdtemp(prefix="tussis-tests-"))
    if os.geteuid() == 0:
        folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@dataclass(frozen=True)
class Bucket:
    """An empty bucket with a client."""

    name: str
    client: Any

    def put(self, key: str, data: bytes, metadata: dict[str, str] | None = None) -> str:
        """Store an object and return its ``s3://`` URI."""
        self.client.put_object(Bucket=self.name, Key=key, Body=data, Metadata=metadata or {})
        return f"s3://{self.name}/{key}"

    def uri(self, key: str) -> str:
        """Return the URI of a key, whether it exists or not."""
        return f"s3://{self.name}/{key}"


def s3_client(endpoints: Endpoints, endpoint_url: str | None = None) -> Any:
    """Return a boto3 client for the embedded store, or for a proxy in front of it."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint_url or endpoints.s3_endpoint_url,
        region_name=endpoints.s3_region,
        aws_access_key_id=endpoints.s3_access_key,
        aws_secret_access_key=endpoints.s3_secret_key,
        config=Config(connect_timeout=5, read_timeout=20),
    )


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """The session's servers. A server that a test stops is started again by that test or by the next fixture."""
    with server_folder() as folder, Servers(folder) as servers:
        yield servers


def _database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def _admin(servers: Servers, *statements: sql.Composed) -> None:
    servers.postgres.start()
    with psycopg.connect(servers.endpoints.database_url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


@contextmanager
def fresh_database(servers: Servers, template: str) -> Iterator[str]:
    """Copy a database from ``template`` and drop it at the end. ``template`` must have no connections."""
    name = f"test_{uuid.uuid4().hex}"
    _admin(
        servers,
        sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)),
    )
    try:
        yield _database(servers.endpoints.database_url, name)
    finally:
        _admin(servers, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database_url(servers: Servers) -> Iterator[str]:
    """A database without tables."""
    with fresh_database(servers, "template1") as url:
        yield url


@pytest.fixture
def broker_url(servers: Servers) -> Iterator[str]:
    """An empty logical database of the broker."""
    servers.broker.start()
    parts = urlsplit(servers.endpoints.broker_url)
    url = urlunsplit(parts._replace(path=f"/{next(_broker_databases)}"))
    _flush(url)
    yield url
    servers.broker.start()
    _flush(url)


def _flush(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.flushdb()


@pytest.fixture
def bucket(servers: Servers) -> Iterator[Bucket]:
    """An empty bucket, removed with its content at the end."""
    servers.s3.start()
    client = s3_client(servers.endpoints)
    bucket = Bucket(f"test-{uuid.uuid4().hex}", client)
    client.create_bucket(Bucket=bucket.name)
    yield bucket
    servers.s3.start()
    client.delete_bucket(Bucket=bucket.name)
    client.close()
