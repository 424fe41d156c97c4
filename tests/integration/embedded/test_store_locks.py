"""The embedded store without credentials: on none of its ports is a recording read, written, listed or deleted."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator

import psutil
import pytest

from tests.support.servers import Bucket
from tussis.worker.embedded.ports import LOOPBACK
from tussis.worker.embedded.s3 import PORTS
from tussis.worker.embedded.servers import Servers

DATA = b"the voice of a patient " * 100
KEY = "consult/anna-k.wav"
#: A status page: how much disk is used, the numbers of the volumes, the buckets. It names no object.
STATUS = ("/status", "/healthz", "/metrics")


@pytest.fixture
def recording(bucket: Bucket) -> Iterator[Bucket]:
    bucket.put(KEY, DATA)
    yield bucket
    assert bucket.client.get_object(Bucket=bucket.name, Key=KEY)["Body"].read() == DATA
    assert [entry["Key"] for entry in bucket.client.list_objects_v2(Bucket=bucket.name)["Contents"]] == [KEY]
    bucket.client.delete_object(Bucket=bucket.name, Key=KEY)


def ports_of(servers: Servers) -> dict[str, int]:
    return dict(zip(PORTS, servers.s3._ports, strict=True))


def test_it_listens_on_loopback_and_on_no_port_that_is_not_listed(servers: Servers) -> None:
    weed = psutil.Process(servers.s3.pid)
    found = {one.laddr for one in weed.net_connections("inet") if one.status == psutil.CONN_LISTEN}

    assert {address.ip for address in found} == {LOOPBACK}
    assert {address.port for address in found} == set(ports_of(servers).values())


@pytest.mark.parametrize("name", [name for name in PORTS if not name.endswith(".grpc")])
def test_http_gives_away_nothing(servers: Servers, recording: Bucket, name: str) -> None:
    paths = [
        f"/buckets/{recording.name}/{KEY}", f"/{recording.name}/{KEY}", f"/buckets/{recording.name}/", "/buckets/", "/",
        f"/{recording.name}/", f"/col/delete?collection={recording.name}", "/dir/assign", "/dir/status", "/vol/status",
        "/dir/lookup?volumeId=1", "/submit", "/ui/index.html", "/1,01", "/object-store/buckets", "/api/s3/buckets",
        *STATUS,
    ]  # fmt: skip
    for path in paths:
        for method in ("GET", "POST", "PUT", "DELETE"):
            connection = http.client.HTTPConnection(LOOPBACK, ports_of(servers)[name], timeout=60)
            try:
                connection.request(method, path, b"forged", {"Content-Type": "audio/wav"})
                answer = connection.getresponse()
                status, body = answer.status, answer.read()
            except ConnectionError:  # HTTP to a port with TLS
                continue
            finally:
                connection.close()
            assert status >= 400 or path in STATUS, (method, path, status, body[:200])
            for secret in (DATA[:20], b"anna"):
                # An error of the S3 server repeats the path that was asked for.
                assert secret not in body or secret.decode() in path, (method, path, status, body[:200])


@pytest.mark.parametrize("name", [name for name in PORTS if name.endswith(".grpc")] + ["master.port"])
def test_grpc_and_the_master_ask_for_a_certificate(servers: Servers, name: str) -> None:
    """Without TLS there is no answer. With TLS the server ends the connection: the client has no certificate."""
    address = (LOOPBACK, ports_of(servers)[name])
    with socket.create_connection(address, timeout=60) as plain:
        answer = _asked(plain)
        # TLS's own alert, or the master's refusal of plain HTTP.
        assert answer[:1] in (b"", b"\x15") or answer.startswith(b"HTTP/1.0 400")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"] if name == "master.port" else ["h2"])
    with socket.create_connection(address, timeout=60) as raw, context.wrap_socket(raw) as stranger:
        assert _asked(stranger) == b""


def _asked(connection: socket.socket) -> bytes:
    """What a server answers to the beginning of HTTP/2, which gRPC uses; nothing if it ends the connection."""
    try:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        return connection.recv(1024)
    except (ConnectionError, ssl.SSLError):
        return b""


def test_the_store_s_own_keys_are_new_at_each_start_and_for_its_owner(servers: Servers) -> None:
    home = servers.folder / "s3"
    first = (home / "certificate.key").read_bytes()
    servers.s3.stop()
    servers.s3.start()

    assert (home / "certificate.key").read_bytes() != first
    assert (home / "certificate.key").stat().st_mode & 0o077 == 0
    assert home.stat().st_mode & 0o077 == 0
    assert json.loads((home / "keys.json").read_text())["identities"]
