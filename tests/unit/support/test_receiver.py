"""The receiver of webhooks records whole requests only, as a real one reads them."""

from __future__ import annotations

import http.client
import socket
from urllib.parse import urlsplit

import pytest

from tests.support.receiver import Receiver

HEAD = b"POST /hook HTTP/1.1\r\nHost: here\r\nContent-Length: 10\r\n\r\n"


@pytest.mark.parametrize("sent", [HEAD, HEAD + b"12345"], ids=["no body", "half a body"])
def test_a_request_that_ends_in_its_body_is_not_recorded(receiver: Receiver, sent: bytes) -> None:
    where = urlsplit(receiver.url)
    assert where.hostname is not None
    with socket.create_connection((where.hostname, where.port), timeout=10) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""  # it is handled, and closed without an answer

    whole = http.client.HTTPConnection(where.netloc, timeout=10)
    whole.request("POST", "/hook", b"1234567890")
    assert whole.getresponse().status == 204
    whole.close()
    assert [request.body for request in receiver.requests] == [b"1234567890"]
