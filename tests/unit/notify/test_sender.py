"""One request: its time limits, its address, and answers of receivers that misbehave."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from tests.support.receiver import Handler, Receiver, accept, status
from tests.support.waiting import PATIENCE
from tussis.worker.notify import sender as sender_module
from tussis.worker.notify.addresses import AddressPolicy, Resolver, SocketAddress, parse_networks
from tussis.worker.notify.endpoint import parse_endpoint
from tussis.worker.notify.sender import NotDelivered, ReceiverAnswer, Sender, TimeLimits

LOOPBACK = AddressPolicy(parse_networks(("127.0.0.0/8",)))
SHORT = TimeLimits(connect_s=2.0, answer_s=0.5)
HEADERS = {"webhook-id": "msg_1"}
#: Seconds: far more than the time limits of a request, far less than a receiver that hangs.
SOON_S = 5.0 * PATIENCE

MADE: list[Sender] = []


def make(
    url: str,
    policy: AddressPolicy = LOOPBACK,
    limits: TimeLimits = SHORT,
    tls: ssl.SSLContext | None = None,
) -> Sender:
    endpoint = parse_endpoint(url)
    made = Sender(endpoint, Resolver(endpoint.host, endpoint.port), policy, limits, tls)
    MADE.append(made)
    return made


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    while MADE:
        MADE.pop().close()


@contextmanager
def raw_server(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does what it wants with each connection after its first bytes."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

        def handle(connection: socket.socket) -> None:
            with connection:
                try:
                    connection.recv(65_536)
                    behave(connection)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        server.shutdown(socket.SHUT_RDWR)


def test_a_request_is_what_it_should_be(receiver: Receiver) -> None:
    sender = make(f"{receiver.url}?a=b")
    assert sender.post(b'{"a":1}', HEADERS) == ReceiverAnswer(204)
    [received] = receiver.requests
    assert (received.path, received.body) == ("/hook?a=b", b'{"a":1}')
    assert received.headers["webhook-id"] == "msg_1"
    assert received.headers["host"] == receiver.url.split("/")[2]
    assert received.headers["content-length"] == "7"


def test_a_connection_is_used_again_and_one_that_the_receiver_closed_is_replaced(receiver: Receiver) -> None:
    ports = []

    def note(handler: Handler) -> None:
        ports.append(handler.client_address[1])
        handler.answer(200, {}, b"x" * 10_000)
        handler.close_connection = len(ports) == 2  # without saying so

    receiver.behaviour = note
    sender = make(receiver.url)
    for _ in range(3):
        assert sender.post(b"{}", HEADERS).status == 200
        time.sleep(0.1)
    assert ports[0] == ports[1] != ports[2]


def test_a_connection_is_not_used_for_ever(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = []

    def note(handler: Handler) -> None:
        ports.append(handler.client_address[1])
        accept(handler)

    receiver.behaviour = note
    monkeypatch.setattr(sender_module, "_REUSE_S", 0.0)
    sender = make(receiver.url)
    for _ in range(2):
        sender.post(b"{}", HEADERS)
    assert ports[0] != ports[1]


def test_a_request_that_fails_on_a_new_connection_is_not_repeated(receiver: Receiver) -> None:
    receiver.behaviour = Handler.drop
    with pytest.raises(NotDelivered, match="no answer"):
        make(receiver.url).post(b"{}", HEADERS)
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("number", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(receiver: Receiver, number: int) -> None:
    receiver.behaviour = status(number, {"Location": f"{receiver.url}/elsewhere"})
    assert make(receiver.url).post(b"{}", HEADERS).status == number
    assert [request.path for request in receiver.requests] == ["/hook"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("17", 17.0), ("0", 0.0), ("-5", None), ("soon", None), ("9" * 30, None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)],
)
def test_retry_after(receiver: Receiver, text: str, seconds: float | None) -> None:
    receiver.behaviour = status(503, {"Retry-After": text})
    assert make(receiver.url).post(b"{}", HEADERS) == ReceiverAnswer(503, seconds)


def test_retry_after_may_be_a_date(receiver: Receiver) -> None:
    receiver.behaviour = status(429, {"Retry-After": format_datetime(datetime.now(UTC) + timedelta(minutes=5), True)})
    asked = make(receiver.url).post(b"{}", HEADERS).retry_after_s
    assert asked is not None
    assert 200 < asked <= 300


def slowly(text: bytes) -> Callable[[socket.socket], None]:
    def send(connection: socket.socket) -> None:
        for byte in text * 1000:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    return send


def endless(head: bytes, part: bytes) -> Callable[[socket.socket], None]:
    def send(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(part)

    return send


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(lambda connection: time.sleep(60), id="hangs"),
        pytest.param(slowly(b"HTTP/1.1 200 OK\r\nA: b\r\n"), id="one byte now and then"),
        pytest.param(endless(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"), id="endless headers"),
        pytest.param(endless(b"HTTP/1.1 200 OK\r\nA: ", b"b" * 1000), id="an endless header"),
        pytest.param(endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), id="continue, without end"),
        pytest.param(lambda connection: connection.sendall(b"SSH-2.0-x\r\n"), id="another protocol"),
        pytest.param(lambda connection: connection.sendall(b"HTTP/1.1 2"), id="cut"),
    ],
)
def test_a_receiver_without_a_proper_answer_is_a_failure_in_time(behave: Callable[[socket.socket], None]) -> None:
    with raw_server(behave) as url:
        began = time.monotonic()
        with pytest.raises(NotDelivered) as raised:
            make(url).post(b"{}", HEADERS)
        assert time.monotonic() - began < SOON_S
        assert "\n" not in str(raised.value)
        assert len(str(raised.value)) < 300


@pytest.mark.parametrize("head", [b"Content-Length: 99999999999", b"Transfer-Encoding: chunked", b"X: y"])
def test_an_endless_body_is_not_read_to_its_end(head: bytes) -> None:
    sent = 0

    def send(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        part = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
        while True:
            connection.sendall(part)
            sent += len(part)

    with raw_server(send) as url:
        began = time.monotonic()
        assert make(url).post(b"{}", HEADERS).status == 200
        assert time.monotonic() - began < SOON_S
    assert sent < 20_000_000  # what the buffers of the system take


def test_a_body_that_comes_slowly_delays_nobody() -> None:
    with raw_server(slowly(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + b"x" * 50)) as url:
        began = time.monotonic()
        sender = make(url, limits=TimeLimits(answer_s=60.0))
        assert sender.post(b"{}", HEADERS).status == 200
        assert time.monotonic() - began < 5 * SOON_S


def test_a_port_that_refuses(unused_port: int) -> None:
    with pytest.raises(NotDelivered, match=r"no connection to 127\.0\.0\.1: Connection refused"):
        make(f"http://127.0.0.1:{unused_port}/SECRET").post(b"{}", HEADERS)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://[::ffff:127.0.0.1]:{port}/"]
)
def test_a_private_address_is_not_connected_to(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        with pytest.raises(NotDelivered, match="not public"):
            make(url.format(port=server.getsockname()[1]), AddressPolicy()).post(b"{}", HEADERS)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the second answer of the name server is the loopback address."""
    port = int(receiver.url.split(":")[2].split("/")[0])
    answers = [["203.0.113.1"], ["127.0.0.1"], ["127.0.0.1", "203.0.113.1"]]
    asked = []

    def resolve(host: str, port: int, **options: object) -> list[object]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers.pop(0)]

    connected = []

    class Recorded(socket.socket):
        def connect(self, address: object) -> None:
            connected.append(address)
            raise OSError(111, "Connection refused")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "socket", Recorded)
    policy = AddressPolicy(parse_networks(("203.0.113.0/24",)))
    for expected in ("no connection", "not public", "no connection"):
        with pytest.raises(NotDelivered, match=expected):
            make(f"http://rebinding.example:{port}/", policy).post(b"{}", HEADERS)
    assert asked == ["rebinding.example"] * 3
    assert connected == [("203.0.113.1", port)] * 2
    assert receiver.requests == []


def test_the_next_address_is_tried(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(receiver.url.split(":")[2].split("/")[0])
    found = [SocketAddress(socket.AF_INET, (host, port)) for host in ("127.0.0.2", "127.0.0.1")]
    monkeypatch.setattr(Resolver, "addresses", lambda self, timeout_s: found)
    assert make(f"http://two.example:{port}/hook").post(b"{}", HEADERS).status == 204


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for receiver.example, with its key."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    made = path.with_suffix(".crt")
    options = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=receiver.example"]
    names: list[str | Path] = ["-addext", "subjectAltName=DNS:receiver.example", "-keyout", path, "-out", made]
    subprocess.run(["openssl", *options, *names], check=True, capture_output=True, timeout=60)
    path.write_bytes(path.read_bytes() + made.read_bytes())
    return path


@pytest.mark.parametrize(("host", "words"), [("receiver.example", None), ("other.example", "certificate is not valid")])
def test_tls_checks_the_name_of_the_host_and_not_the_address(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, host: str, words: str | None
) -> None:
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate)
    seen: list[bytes] = []

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            try:
                with served.wrap_socket(connection, server_side=True) as tls:
                    while not b"".join(seen).endswith(b"{}"):
                        seen.append(tls.recv(65_536))
                    tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            except OSError:
                return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        address = SocketAddress(socket.AF_INET, ("127.0.0.1", server.getsockname()[1]))
        monkeypatch.setattr(Resolver, "addresses", lambda self, timeout_s: [address])
        trusted = ssl.create_default_context(cafile=str(certificate))
        sender = make(f"https://{host}/", limits=TimeLimits(10, 10), tls=trusted)
        if words is None:
            assert sender.post(b"{}", HEADERS).status == 200
            assert b"Host: receiver.example\r\n" in b"".join(seen)
        else:
            with pytest.raises(NotDelivered, match=words):
                sender.post(b"{}", HEADERS)
            thread.join(30)


def test_a_tls_handshake_that_hangs_is_a_failure_in_time(silent_port: int) -> None:
    began = time.monotonic()
    with pytest.raises(NotDelivered, match="no connection"):
        make(f"https://127.0.0.1:{silent_port}/", limits=TimeLimits(0.3, 60), tls=ssl.create_default_context()).post(
            b"{}", HEADERS
        )
    assert time.monotonic() - began < SOON_S
