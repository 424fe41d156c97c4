"""The URL of the broker that both of its libraries get: every option of TLS is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection

from tussis.shared.broker import redact
from tussis.shared.broker_address import broker_address, verified
from tussis.shared.errors import SettingsInvalid


def _of_redis_py(url: str) -> dict[str, Any]:
    return redis.Redis.from_url(url).connection_pool.connection_kwargs


def _of_kombu(url: str) -> dict[str, Any]:
    options: dict[str, Any] = Connection(url).ssl
    return options


@pytest.mark.parametrize("url", ["redis://:a%2Fb@h:1/2?db=3", "unix:///run/broker.sock", "nonsense", "redis://["])
def test_a_url_without_tls_stays_as_it_is(url: str) -> None:
    assert broker_address(url) == url
    assert verified("redis://h/0")


@pytest.mark.parametrize("url", ["rediss://h", "rediss://h/0?ssl_cert_reqs=optional", "rediss://h?ssl_cert_reqs="])
def test_both_libraries_verify_certificate_and_name(url: str) -> None:
    address = broker_address(url, ca=Path("/a b/ca.pem"), certificate=Path("/c.pem"), key=Path("/k.pem"))

    for options in (_of_redis_py(address), _of_kombu(address)):
        assert str(options["ssl_cert_reqs"]).lower().endswith("required") or int(options["ssl_cert_reqs"]) == 2
        assert options["ssl_check_hostname"] is True
        assert options["ssl_ca_certs"] == "/a b/ca.pem"
        assert (options["ssl_certfile"], options["ssl_keyfile"]) == ("/c.pem", "/k.pem")
    assert verified(address)


def test_the_url_takes_precedence_over_the_settings() -> None:
    address = broker_address("rediss://h/0?ssl_ca_certs=/url.pem", ca=Path("/setting.pem"))
    assert _of_redis_py(address)["ssl_ca_certs"] == _of_kombu(address)["ssl_ca_certs"] == "/url.pem"


@pytest.mark.parametrize("off", ["ssl_cert_reqs=none", "ssl_check_hostname=False", "ssl_check_hostname=0"])
def test_an_option_in_the_url_turns_a_check_off_in_both(off: str) -> None:
    address = broker_address(f"rediss://h/0?{off}")
    assert not verified(address)
    found, other = _of_redis_py(address), _of_kombu(address)
    assert found["ssl_check_hostname"] == other["ssl_check_hostname"]
    assert (found["ssl_cert_reqs"] == "none") == (int(other["ssl_cert_reqs"]) == 0)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        # redis-py would take the first and verify; kombu would take the second and not.
        ("rediss://h?ssl_cert_reqs=required&ssl_cert_reqs=none", "twice"),
        ("rediss://h?ssl_cert_reqs=sometimes", "write required or none"),
        ("rediss://:sec#ret@h", "write %23"),
    ],
)
def test_what_the_libraries_would_read_differently_is_refused(url: str, words: str) -> None:
    with pytest.raises(SettingsInvalid, match=words) as refused:
        broker_address(url)
    assert "ret@" not in str(refused.value)


def test_files_of_tls_without_tls_are_refused() -> None:
    with pytest.raises(SettingsInvalid, match="TUSSIS_BROKER_CA is set, and TUSSIS_BROKER_URL does not start"):
        broker_address("redis://h/0", ca=Path("/ca.pem"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rediss://:s@h:1/0?ssl_cert_reqs=required&ssl_check_hostname=true", "rediss://***@h:1/0"),
        ("rediss://h/0?ssl_password=secret&db=1", "rediss://h/0"),
        ("rediss://h/0?db=1&ssl_password=secret", "rediss://h/0"),
        ("redis:/:secret@h", "the address in TUSSIS_BROKER_URL"),
        ("rediss:secret@h", "the address in TUSSIS_BROKER_URL"),
        (":secret@h:6379", "the address in TUSSIS_BROKER_URL"),
        ("user:secret@h", "the address in TUSSIS_BROKER_URL"),
        ("secret:@h", "the address in TUSSIS_BROKER_URL"),
    ],
)
def test_a_message_has_no_secret_and_no_file(url: str, shown: str) -> None:
    assert redact(url) == shown
