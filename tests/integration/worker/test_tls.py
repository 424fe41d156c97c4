"""The whole main path over TLS, with a private CA and client certificates, and servers that cannot be verified."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest

from tests.support.aws import Aws
from tests.support.deployment import Deployment
from tests.support.gateway import HEADERS, start_gateway
from tests.support.s3_events import record, records
from tests.support.sounds import wav
from tests.support.tls import UNTRUSTED, Certificates, TlsProxy

SOON_S = 60.0


@dataclass
class Proxies:
    """The three servers behind TLS, and the variables for a process that uses them."""

    broker: TlsProxy
    database: TlsProxy
    store: TlsProxy
    environment: dict[str, str]


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def proxies(
    deployment: Deployment, stack: ExitStack, certificates: Certificates, kind: str = "server", *, clients: bool = False
) -> Proxies:
    """``kind``: the certificate of all servers. ``clients``: broker and database require a certificate of clients."""
    old = deployment.environment
    ours = certificates.named(kind)
    client_ca = certificates.ca if clients else None
    broker = stack.enter_context(TlsProxy(_port(old["TUSSIS_BROKER_URL"]), ours, client_ca=client_ca))
    database = stack.enter_context(
        TlsProxy(_port(old["TUSSIS_DATABASE_URL"]), ours, client_ca=client_ca, postgres=True)
    )
    store = stack.enter_context(TlsProxy(_port(old["TUSSIS_S3_ENDPOINT_URL"]), ours))
    parts, user = urlsplit(old["TUSSIS_BROKER_URL"]), urlsplit(old["TUSSIS_DATABASE_URL"])
    options = f"sslmode=verify-full&sslrootcert={certificates.ca}"
    if clients:
        options += f"&sslcert={certificates.client}&sslkey={certificates.client}"
    environment = old | {
        "TUSSIS_BROKER_URL": f"rediss://:{parts.password}@localhost:{broker.port}{parts.path}",
        "TUSSIS_BROKER_CA": str(certificates.ca),
        "TUSSIS_DATABASE_URL": urlunsplit(
            user._replace(netloc=f"{user.username}:{user.password}@localhost:{database.port}", query=options)
        ),
        "TUSSIS_S3_ENDPOINT_URL": f"https://localhost:{store.port}",
        "AWS_CA_BUNDLE": str(certificates.ca),
    }
    if clients:
        environment["TUSSIS_BROKER_CERT"] = str(certificates.client)
    return Proxies(broker, database, store, environment)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_a_worker_analyses_over_tls_with_a_private_ca_and_client_certificates(
    deployment: Deployment, certificates: Certificates, stack: ExitStack, aws: Aws, tmp_path: Path
) -> None:
    """What `tussis upload`, the gateway and a listener enqueue."""
    through = proxies(deployment, stack, certificates, clients=True)
    deployment.environment = through.environment
    worker = deployment.worker(concurrency=1)
    _, gateway = start_gateway(deployment)
    queue, sqs = aws.queue(), stack.enter_context(TlsProxy(_port(aws.url), certificates.server))
    queue_url = queue.url.replace(aws.url, f"https://localhost:{sqs.port}")
    recording = tmp_path / "a.wav"
    recording.write_bytes(wav(1.0))

    uploaded = deployment.tussis("upload", str(recording), "--prefix", f"s3://{deployment.bucket.name}/", "--wait")
    assert uploaded.wait(SOON_S * 2) == 0, uploaded.text
    received = httpx.post(f"{gateway}/v1/recordings", content=wav(0.5), headers=HEADERS, timeout=SOON_S)
    assert received.status_code == 202, received.text
    assert httpx.get(f"{gateway}/v1/failures", headers=HEADERS, timeout=SOON_S).json() == {"failures": []}
    deployment.bucket.put("listened.wav", wav(0.7))
    queue.send(records(record(deployment.bucket.name, "listened.wav", eTag=None)))
    # One set of keys for the store and for SQS: the server that stands in for SQS accepts any.
    deployment.tussis("listen", "sqs", "--queue-url", queue_url)
    queue.wait_empty(SOON_S)
    deployment.wait_results(3, SOON_S)
    for words in (["status"], ["results", "--json"]):
        told = deployment.tussis(*words)
        assert told.wait(SOON_S) == 0, told.text

    assert b"AUTH" in through.broker.received
    assert b"SCRAM" in through.database.received
    assert b"PUT /" in through.store.received
    assert b"ReceiveMessage" in sqs.received
    assert not [event for event in worker.events if event.get("event") == "broker_not_verified"]
    assert [analysis.state.value for analysis in deployment.analyses()] == ["succeeded"] * 3


@pytest.mark.parametrize("kind", UNTRUSTED)
def test_no_command_logs_in_at_a_server_that_cannot_prove_its_name(
    deployment: Deployment, certificates: Certificates, stack: ExitStack, kind: str
) -> None:
    """Given one server that cannot be verified, when a command needs it, then it ends with one line, and the server
    has got nothing."""
    wrong = proxies(deployment, stack, certificates, kind)
    secrets = ("TUSSIS_BROKER_URL", "TUSSIS_BROKER_CA")
    broker = deployment.environment | {name: wrong.environment[name] for name in secrets}
    database = deployment.environment | {"TUSSIS_DATABASE_URL": wrong.environment["TUSSIS_DATABASE_URL"]}
    names = ("TUSSIS_S3_ENDPOINT_URL", "AWS_CA_BUNDLE")
    store = deployment.environment | {name: wrong.environment[name] for name in names}
    uri = deployment.bucket.put("a.wav", wav(0.5))
    queue_url = f"https://localhost:{wrong.store.port}/123456789012/uploads"
    sqs = deployment.environment | {"AWS_CA_BUNDLE": str(certificates.ca), "TUSSIS_SQS_QUEUE_URL": queue_url}
    webhook = {"TUSSIS_WEBHOOK_URL": "http://127.0.0.1:9/", "TUSSIS_WEBHOOK_SECRET": "whsec_" + "QUJD" * 10}
    commands = [
        (broker, ["worker", "cpu"], "TUSSIS_BROKER_CA"),
        (broker, ["enqueue", uri], "TUSSIS_BROKER_CA"),
        (broker, ["status"], "TUSSIS_BROKER_CA"),
        (broker, ["outcomes"], "TUSSIS_BROKER_CA"),
        (broker | webhook, ["notify"], "TUSSIS_BROKER_CA"),
        (broker | {"TUSSIS_SQS_QUEUE_URL": queue_url}, ["listen", "sqs"], "TUSSIS_BROKER_CA"),
        (sqs, ["listen", "sqs"], "AWS_CA_BUNDLE"),
        (database, ["worker", "cpu"], "sslrootcert"),
        (database, ["results"], "sslrootcert"),
        (store, ["enqueue", uri], "AWS_CA_BUNDLE"),
    ]
    running = [(deployment.spawn(*words, environment=given), words, ca) for given, words, ca in commands]
    for command, words, ca in running:
        assert command.wait(SOON_S) not in (0, None), (words, command.text)
        (line,) = [line for line in command.stderr if line.startswith("tussis: ")]
        assert "localhost" in line, line
        # PostgreSQL's library does not tell an expired certificate from an unknown CA.
        assert UNTRUSTED[kind] in line or ca in line, (words, line)

    assert (wrong.broker.received, wrong.database.received, wrong.store.received) == (b"", b"", b"")


@pytest.mark.parametrize("kind", UNTRUSTED)
def test_a_gateway_and_a_listener_tell_which_server_cannot_be_verified(
    deployment: Deployment, certificates: Certificates, stack: ExitStack, aws: Aws, kind: str
) -> None:
    """They go on without it: the gateway answers 503, the listener waits. The log says what to set, and the server has
    got nothing."""
    usual = deployment.environment
    wrong = proxies(deployment, stack, certificates, kind)
    deployment.environment = wrong.environment
    gateway, url = start_gateway(deployment)
    with_tag, without = records(record("clinic", "a.wav")), records(record("clinic", "a.wav", eTag=None))
    requests = [
        ("broker_refused", "TUSSIS_BROKER_CA", httpx.Request("POST", f"{url}/v1/s3-events", content=with_tag)),
        ("storage_unavailable", "AWS_CA_BUNDLE", httpx.Request("POST", f"{url}/v1/s3-events", content=without)),
        ("database_refused", "sslrootcert", httpx.Request("GET", f"{url}/v1/failures")),
    ]
    with httpx.Client(timeout=SOON_S) as client:
        for error_class, ca, request in requests:
            request.headers.update(HEADERS)
            answer = client.send(request)
            assert (answer.status_code, answer.json()["error"]["class"]) == (503, error_class), answer.text
            told = gateway.wait_for_event("request_failed", SOON_S, error_class=error_class)
            assert "localhost" in told["reason"]
            assert UNTRUSTED[kind] in told["reason"] or ca in told["reason"], told

    queue = aws.queue()
    queue.send(without)
    names = ("TUSSIS_S3_ENDPOINT_URL", "AWS_CA_BUNDLE")
    deployment.environment = usual | {name: wrong.environment[name] for name in names}
    listener = deployment.tussis("listen", "sqs", "--queue-url", queue.url)
    told = listener.wait_for_event("holding", SOON_S, error_class="storage_unavailable")
    assert UNTRUSTED[kind] in told["reason"] or "AWS_CA_BUNDLE" in told["reason"], told

    assert (wrong.broker.received, wrong.database.received, wrong.store.received) == (b"", b"", b"")
