"""``tussis serve`` as a process: its start, its refusals, its log, and its end."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.gateway import HEADERS, TOKEN
from tests.support.processes import Running, Spawn
from tests.support.servers import Bucket
from tests.support.waiting import wait_until
from tussis.worker.embedded.servers import Servers

START_S = 90.0


@pytest.fixture
def start(spawn: Spawn, servers: Servers, broker_url: str, bucket: Bucket, tmp_path: Path) -> Callable[..., Running]:
    """Start ``tussis serve`` on a free port."""

    def start(*words: str, **settings: str) -> Running:
        environment = servers.endpoints.environment() | {
            "TUSSIS_BROKER_URL": broker_url,
            "TUSSIS_SERVE_TOKENS": f"clinic:{TOKEN}",
            "TUSSIS_UPLOAD_PREFIX": f"s3://{bucket.name}/uploads",
            "TUSSIS_SERVE_PORT": "0",
            "TUSSIS_LOG_LEVEL": "debug",
        }
        environment.pop("TUSSIS_DATABASE_URL", None)
        return spawn("serve", *words, environment=environment | settings)

    return start


def url_of(gateway: Running) -> str:
    ready = gateway.wait_for_event("gateway_ready", START_S)
    return f"http://{ready['host']}:{ready['port']}"


def test_it_serves_until_sigterm_and_finishes_its_requests(start: Callable[..., Running]) -> None:
    gateway = start()
    url = url_of(gateway)
    answers: list[httpx.Response] = []
    stopping = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield b"first"
        stopping.wait(30)
        yield b"last"

    def send() -> None:
        answers.append(httpx.post(f"{url}/v1/recordings", content=pieces(), headers=HEADERS, timeout=60))

    def read() -> None:
        with httpx.stream("GET", f"{url}/v1/outcomes", headers=HEADERS, timeout=60) as response:
            list(response.iter_lines())
        streamed.set()

    streamed = threading.Event()
    threads = [threading.Thread(target=send, daemon=True), threading.Thread(target=read, daemon=True)]
    for thread in threads:
        thread.start()

    def busy() -> bool:
        metrics = httpx.get(f"{url}/v1/metrics", headers=HEADERS).text
        return "tussis_http_uploads 1.0" in metrics and "tussis_http_streams 1.0" in metrics

    wait_until(busy, 30, "the upload and the stream to begin")
    gateway.signal(signal.SIGTERM)
    assert streamed.wait(30)
    stopping.set()
    threads[0].join(30)

    assert answers[0].status_code == 202, answers[0].text
    assert gateway.wait(30) == 0
    assert gateway.events[-1]["event"] == "gateway_stopped"
    text = "\n".join([*gateway.stdout, *gateway.stderr])
    assert TOKEN not in text


def test_an_upload_that_does_not_end_is_given_up(start: Callable[..., Running], bucket: Bucket) -> None:
    gateway = start(TUSSIS_SERVE_STOP_S="2")
    url = httpx.URL(url_of(gateway))
    with socket.create_connection((url.host, url.port or 0)) as connection:
        connection.sendall(
            f"POST /v1/recordings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            "Content-Length: 20000000\r\n\r\n".encode()
            + bytes(9_000_000)
        )
        wait_until(
            lambda: bool(bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads")), 30, "the upload"
        )
        gateway.signal(signal.SIGTERM)
        assert gateway.wait(30) == 0
    assert not bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads")


def test_the_log_of_a_request_has_its_route_and_no_key(start: Callable[..., Running]) -> None:
    gateway = start()
    httpx.put(f"{url_of(gateway)}/v1/recordings/patient-7.wav?metadata={{}}", content=b"x", headers=HEADERS)

    event = gateway.wait_for_event("http_request", 10)

    assert (event["route"], event["status"], event["caller"]) == ("/v1/recordings/{key:path}", 202, "clinic")
    assert "patient-7" not in json.dumps(gateway.events)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"TUSSIS_SERVE_TOKENS": ""}, "has no tokens"),
        ({"TUSSIS_SERVE_TOKENS": "", "TUSSIS_SERVE_WITHOUT_TOKENS": "1", "TUSSIS_SERVE_HOST": "0.0.0.0"}, "loopback"),
        ({"TUSSIS_BROKER_URL": ""}, "TUSSIS_BROKER_URL"),
        ({"TUSSIS_UPLOAD_PREFIX": "bucket"}, "s3://"),
    ],
)
def test_it_refuses_wrong_settings_in_one_line(
    start: Callable[..., Running], settings: dict[str, str], part: str
) -> None:
    gateway = start(**settings)

    assert gateway.wait(START_S) == 1
    (line,) = gateway.stderr
    assert line.startswith("tussis: ")
    assert part in line


def test_a_port_that_is_taken_is_named(start: Callable[..., Running]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        gateway = start("--port", str(port))
        assert gateway.wait(START_S) == 1

    assert str(port) in gateway.stderr[-1]


def test_help_needs_no_fastapi() -> None:
    script = (
        "import sys; sys.modules['fastapi'] = None; sys.modules['uvicorn'] = None\n"
        "from tussis.producer.cli import main; sys.argv = ['tussis', 'serve', '--help']; main()"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)

    assert shown.returncode == 0, shown.stderr
    assert "--tokens-file" in shown.stdout
