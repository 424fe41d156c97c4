"""The producer's own fixtures: a broker and a store in the environment, and a look into the broker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.support.servers import Bucket
from tussis.producer import Producer
from tussis.worker.embedded.servers import Servers


@pytest.fixture
def environment(servers: Servers, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The settings for this test's broker and the store, in the environment."""
    settings = servers.endpoints.environment() | {"TUSSIS_BROKER_URL": broker_url}
    del settings["TUSSIS_DATABASE_URL"]  # a producer needs none
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return settings


@pytest.fixture
def broker(broker_url: str) -> Iterator[redis.Redis]:
    """A plain client of this test's broker database."""
    with redis.Redis.from_url(broker_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def producer(broker_url: str, bucket: Bucket) -> Iterator[Producer]:
    """A producer for this test's broker and bucket."""
    with Producer(broker_url, s3_client=bucket.client) as producer:
        yield producer


@pytest.fixture
def versioned(bucket: Bucket) -> Bucket:
    """The bucket, keeping versions."""
    versioning: dict[str, Any] = {"Status": "Enabled"}
    bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration=versioning)
    return bucket


@pytest.fixture
def clinic(bucket: Bucket) -> Iterator[Bucket]:
    """The bucket of docs/enqueue.md, with objects."""
    clinic = Bucket("clinic", bucket.client)
    clinic.client.create_bucket(Bucket=clinic.name)
    for key in ("2026/11/a.wav", "2026/10/c.wav", "2026/10/d.wav", "a.wav", "b.mp3"):
        clinic.put(key, key.encode())
    yield clinic
    clinic.client.delete_bucket(Bucket=clinic.name)
