"""TLS with the broker: what is verified by default, by both libraries that connect, and what is refused before a login.

Every test has a proxy that ends TLS in front of a real broker and sees what the client sends.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.support.tls import UNTRUSTED, Certificates, TlsProxy
from tussis.producer import Producer
from tussis.shared.broker import broker_errors, connect, redact
from tussis.shared.errors import BrokerRefused, BrokerUnavailable, SettingsInvalid
from tussis.shared.queues import Device
from tussis.shared.settings import Settings, load_settings
from tussis.worker.parent.app import build_app


def _settings(broker_url: str, proxy: TlsProxy, options: str = "", **files: Path) -> Settings:
    parts = urlsplit(broker_url)
    return load_settings(broker_url=f"rediss://:{parts.password}@127.0.0.1:{proxy.port}{parts.path}{options}", **files)


def _redis_py(settings: Settings) -> None:
    with closing(connect(settings.need_broker())) as client:
        assert client.ping()


def _kombu(settings: Settings) -> None:
    with build_app(settings, Device.CPU).connection_for_read() as connection:
        assert connection.default_channel.client.ping()


def _producer(settings: Settings) -> None:
    with closing(connect(settings.need_broker())) as _:
        producer = Producer(settings.broker_url, settings=settings)
        assert producer._broker()[0].ping()


CLIENTS = pytest.mark.parametrize("client", [_redis_py, _kombu, _producer], ids=["redis-py", "kombu", "producer"])
Client = Callable[[Settings], None]


def _port(broker_url: str) -> int:
    port = urlsplit(broker_url).port
    assert port is not None
    return port


@CLIENTS
def test_a_certificate_of_the_named_ca_is_accepted(client: Client, broker_url: str, certificates: Certificates) -> None:
    with TlsProxy(_port(broker_url), certificates.server) as proxy:
        client(_settings(broker_url, proxy, broker_ca=certificates.ca))

        assert b"PING" in proxy.received


@CLIENTS
@pytest.mark.parametrize("kind", UNTRUSTED)
def test_a_server_that_cannot_prove_its_name_gets_no_password(
    client: Client, kind: str, broker_url: str, certificates: Certificates
) -> None:
    with TlsProxy(_port(broker_url), certificates.named(kind)) as proxy:
        # The self-signed one is what `rediss://` without any setting meets.
        files = {} if kind == "self_signed" else {"broker_ca": certificates.ca}
        settings = _settings(broker_url, proxy, "", **files)
        with pytest.raises((RedisConnectionError, OperationalError), match="CERTIFICATE_VERIFY_FAILED"):
            client(settings)

        assert proxy.received == b""
        where = redact(settings.need_broker())
        with pytest.raises(BrokerRefused) as refused, broker_errors(where):
            _redis_py(settings)
        assert UNTRUSTED[kind] in str(refused.value)
        assert f"rediss://***@127.0.0.1:{proxy.port}" in str(refused.value)
        assert "\n" not in str(refused.value)


@CLIENTS
def test_a_broker_may_require_a_clients_certificate(
    client: Client, broker_url: str, certificates: Certificates
) -> None:
    with TlsProxy(_port(broker_url), certificates.server, client_ca=certificates.ca) as proxy:
        client(_settings(broker_url, proxy, broker_ca=certificates.ca, broker_cert=certificates.client))
        assert b"PING" in proxy.received

    with TlsProxy(_port(broker_url), certificates.server, client_ca=certificates.ca) as proxy:
        settings = _settings(broker_url, proxy, broker_ca=certificates.ca)
        # Depending on the version of TLS and on timing, the client learns the reason or only that it is refused.
        with (
            pytest.raises((BrokerRefused, BrokerUnavailable), match="TUSSIS_BROKER_CERT"),
            broker_errors(redact(settings.need_broker())),
        ):
            _redis_py(settings)
        assert proxy.received == b""


@CLIENTS
@pytest.mark.parametrize("option", ["ssl_cert_reqs=none", "ssl_cert_reqs=CERT_NONE"])
def test_only_an_option_in_the_url_turns_verification_off(
    client: Client, option: str, broker_url: str, certificates: Certificates
) -> None:
    with TlsProxy(_port(broker_url), certificates.self_signed) as proxy:
        client(_settings(broker_url, proxy, f"?{option}"))

    with TlsProxy(_port(broker_url), certificates.other_host) as proxy:
        client(_settings(broker_url, proxy, "?ssl_check_hostname=no", broker_ca=certificates.ca))


def test_files_that_are_no_certificates_are_refused_before_connecting(
    certificates: Certificates, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("not a certificate")
    with socket.create_server(("127.0.0.1", 0)) as never_asked:
        url = f"rediss://:secret@127.0.0.1:{never_asked.getsockname()[1]}/0"
        for files, words in (
            ({"broker_ca": wrong}, "no certificate in PEM format"),
            ({"broker_ca": tmp_path / "missing.pem"}, "cannot be read"),
            ({"broker_cert": certificates.ca}, "no certificate with its key"),
            ({"broker_key": certificates.client}, "and no certificate"),
        ):
            with pytest.raises(SettingsInvalid, match=words) as refused:
                connect(load_settings(broker_url=url, **files).need_broker())
            assert "secret" not in str(refused.value)
