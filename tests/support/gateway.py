"""A gateway in a thread of the test, over real servers, and a client for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn

from tests.support.deployment import READY_S, Deployment
from tests.support.processes import Running
from tests.support.servers import Bucket
from tests.support.waiting import wait_until
from tussis.shared.settings import Settings, load_settings
from tussis.worker.embedded.servers import Servers
from tussis.worker.gateway.app import create_app
from tussis.worker.gateway.services import Services, open_services

TOKEN = "a-token-of-the-tests"
OTHER_TOKEN = "another-token-of-the-tests"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@dataclass(frozen=True)
class Gateway:
    """A gateway that serves. ``client`` sends the token of the name ``clinic``."""

    url: str
    services: Services
    client: httpx.Client
    bucket: str

    def uploads(self) -> list[str]:
        """The keys under the prefix of the uploads."""
        answer = self.services.s3.client().list_objects_v2(Bucket=self.bucket, Prefix="uploads/")
        return [found["Key"] for found in answer.get("Contents", [])]

    def unfinished(self) -> list[str]:
        """The keys of unfinished multipart uploads."""
        answer = self.services.s3.client().list_multipart_uploads(Bucket=self.bucket)
        return [found["Key"] for found in answer.get("Uploads", [])]


def gateway_settings(broker_url: str, bucket: str, **settings: Any) -> Settings:
    """Settings with two tokens, and with the prefix uploads/ of the bucket."""
    usual = {
        "broker_url": broker_url,
        "serve_tokens": f"clinic:{TOKEN} other:{OTHER_TOKEN}",
        "upload_prefix": f"s3://{bucket}/uploads/",
    }
    return load_settings(**(usual | settings))


@contextmanager
def serving(settings: Settings, bucket: str) -> Iterator[Gateway]:
    """Serve on a free port until the end."""
    with ExitStack() as stack:
        services = stack.enter_context(open_services(settings))
        config = uvicorn.Config(
            create_app(settings, services),
            host="127.0.0.1",
            port=0,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=10,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()

        def end() -> None:
            services.stop()
            server.should_exit = True
            thread.join(30)

        stack.callback(end)
        wait_until(lambda: server.started, 30, "the gateway to serve")
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        client = stack.enter_context(httpx.Client(base_url=url, headers=HEADERS, timeout=30))
        yield Gateway(url, services, client, bucket)


@pytest.fixture
def s3_environment(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address and the credentials of the store in the environment of this process."""
    for name, value in servers.endpoints.environment().items():
        if name.startswith("AWS_") or name == "TUSSIS_S3_ENDPOINT_URL":
            monkeypatch.setenv(name, value)


@pytest.fixture
def gateway(s3_environment: None, broker_url: str, bucket: Bucket) -> Iterator[Gateway]:
    """A gateway without a database."""
    with serving(gateway_settings(broker_url, bucket.name), bucket.name) as gateway:
        yield gateway


@pytest.fixture
def gateway_with_store(s3_environment: None, broker_url: str, store_url: str, bucket: Bucket) -> Iterator[Gateway]:
    """A gateway with a database."""
    with serving(gateway_settings(broker_url, bucket.name, database_url=store_url), bucket.name) as gateway:
        yield gateway


def start_gateway(deployment: Deployment, **settings: object) -> tuple[Running, str]:
    """Start ``tussis serve`` as a process of the deployment, and wait until it serves. Returns it and its URL."""
    usual: dict[str, object] = {
        "serve_port": 0,
        "serve_tokens": f"clinic:{TOKEN}",
        "upload_prefix": f"s3://{deployment.bucket.name}/uploads/",
    }
    gateway = deployment.tussis("serve", **(usual | settings))
    port = gateway.wait_for_event("gateway_ready", READY_S)["port"]
    return gateway, f"http://127.0.0.1:{port}"
