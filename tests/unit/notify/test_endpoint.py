"""The URL of the receiver, and what is shown of it."""

from __future__ import annotations

import pytest

from tussis.shared.errors import SettingsInvalid
from tussis.worker.notify.endpoint import parse_endpoint


@pytest.mark.parametrize(
    ("url", "where", "target"),
    [
        ("https://example.org", "https://example.org:443", "/"),
        ("https://Example.org:8443/a/b?c=d#e", "https://example.org:8443", "/a/b?c=d"),
        ("http://10.0.0.1/hook", "http://10.0.0.1:80", "/hook"),
        ("https://[2606:4700::1]/x", "https://[2606:4700::1]:443", "/x"),
        ("https://bücher.example/", "https://xn--bcher-kva.example:443", "/"),
    ],
)
def test_a_url_is_read(url: str, where: str, target: str) -> None:
    endpoint = parse_endpoint(url)
    assert (endpoint.where, endpoint.target, endpoint.encrypted) == (where, target, url.startswith("https"))


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.org/SECRET", "ftp://example.org/SECRET", "https:///SECRET", "https://u:SECRET@example.org/"),
        *(
            "https://example.org/SECRET key",
            "https://example.org/SECRET\r\nHost: x",
            "https://example.org:99999/SECRET",
        ),
        *("https://example.org/SECRET" + "x" * 2000, "https://[::1/SECRET", f"https://{'a' * 70}.example/SECRET"),
    ],
)
def test_a_wrong_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(SettingsInvalid, match="--url, TUSSIS_WEBHOOK_URL") as raised:
        parse_endpoint(url)
    assert "SECRET" not in str(raised.value)


def test_a_path_may_be_a_secret() -> None:
    endpoint = parse_endpoint("https://example.org/services/SECRET?token=SECRET")
    assert "SECRET" not in f"{endpoint} {endpoint!r} {endpoint.where} {endpoint.fingerprint}"
    assert endpoint.fingerprint != parse_endpoint("https://example.org/services/OTHER").fingerprint
