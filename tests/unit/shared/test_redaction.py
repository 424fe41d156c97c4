"""The secret of a URL is never shown, however malformed the URL is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tussis.producer.sqs import SqsQueue
from tussis.shared.broker import connect, redact
from tussis.shared.errors import SettingsInvalid
from tussis.shared.redaction import is_plain, redacted, without_logins
from tussis.shared.s3 import s3_client
from tussis.shared.s3_refusals import line
from tussis.shared.settings import load_settings
from tussis.shared.store.address import parse_address
from tussis.worker.notify.endpoint import parse_endpoint

#: No part of it that is as long as this may be shown.
SECRET, PART = "Xq7wKpZv", 4
SEPARATORS = ":/@?#[]\\ %&=\n.+-_,;"
SCHEMES = ("redis", "rediss", "postgresql", "https", "http", "unix", "")
NAMED = "the address in TUSSIS_BROKER_URL"


@st.composite
def malformed(draw: st.DrawFn) -> str:
    """A URL with a secret before an @, in which separators were removed and inserted before the @."""
    scheme = draw(st.sampled_from(SCHEMES))
    before = f"{scheme}://{draw(st.sampled_from(['', 'user']))}:{SECRET}"
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(before)))
        if draw(st.booleans()):
            before = before[:at] + draw(st.sampled_from(SEPARATORS)) + before[at:]
        elif at < len(before) and not before[at].isalnum():
            before = before[:at] + before[at + 1 :]
    behind = draw(st.sampled_from(["host", "host:6379", "[::1]:1", "", "a@b"]))
    return f"{before}@{behind}{draw(st.sampled_from(['/0', '/a/b', '', '?x=1']))}"


def assert_not_shown(text: str) -> None:
    for at in range(len(SECRET) - PART + 1):
        assert SECRET[at : at + PART] not in text, text


def errors_of(url: str) -> list[str]:
    """What each reader of a URL says about it."""
    said = []
    readers: tuple[Callable[[str], object], ...] = (
        connect,
        parse_address,
        parse_endpoint,
        lambda text: SqsQueue(text, 30),
        lambda text: s3_client(load_settings(s3_endpoint_url=text)),
    )
    for read in readers:
        try:
            read(url)
        except SettingsInvalid as error:
            said.append(str(error))
    return said


@given(malformed())
@example(f"redis:/:{SECRET}@h")
@example(f"postgresql:user:{SECRET}@h")
@example(f"rediss//:{SECRET}@h")
@example(f"redis://:{SECRET[:4]}/{SECRET[4:]}@h:6379/0")
def test_a_secret_before_an_at_is_never_shown(url: str) -> None:
    assert_not_shown(redact(url))
    assert_not_shown(redacted(url, "TUSSIS_S3_ENDPOINT_URL"))
    assert not is_plain(url)


@pytest.mark.parametrize(
    "url",
    [
        f"redis:/:{SECRET}@h",
        f"rediss//user:{SECRET}@h",
        f"redis//:{SECRET}@h:6379/0",
        f":{SECRET}@h",
        SECRET,
        f"http://user:{SECRET}@h/path/name",
        f"https://user:{SECRET}",
        f"https:/user:{SECRET}@h",
        f"https//h/{SECRET}",
        f"https://sqs.eu-central-1.amazonaws.com/1/name?token={SECRET}",
        f"postgresql:user:{SECRET}@h",
        f"postgresql:/user:{SECRET}@h/db",
        f"postgresql//user:{SECRET}@h",
        f"postgresql://user:a?{SECRET}=b@h/db",
        f"postgresql://user:a/{SECRET}@h/db",
        f"password {SECRET}",
    ],
)
def test_no_error_about_a_url_shows_its_secret(url: str) -> None:
    said = errors_of(url)

    assert said
    for text in said:
        assert_not_shown(text)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host", "redis://host"),
        ("rediss://user:pw@[::1]:6379/15?ssl_ca_certs=/a", "rediss://***@[::1]:6379/15"),
        ("redis://host/pw", "redis://host"),
        ("unix://user:pw@/run/redis.sock?db=1", "unix://***@/run/redis.sock"),
        ("https://sqs.eu-central-1.amazonaws.com/123/name", "https://sqs.eu-central-1.amazonaws.com/123/name"),
        ("redis://", NAMED),
        ("redis://h:pw", NAMED),
        ("amqp://h", NAMED),
        ("redis://h\n", NAMED),
        ("", NAMED),
    ],
)
def test_a_plain_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_the_text_of_a_library_is_shown_without_logins() -> None:
    text = f'Could not connect to the endpoint URL: "https://user:{SECRET}@host/a", or http://x:{SECRET}@@h'
    assert without_logins(text) == 'Could not connect to the endpoint URL: "https://***@host/a", or http://***@h'
    assert_not_shown(line(ValueError(text)))


def test_a_wrong_setting_shows_its_value_only_if_it_is_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUSSIS_MAX_BYTES", "many")
    with pytest.raises(SettingsInvalid, match=r"the value is 'many'"):
        load_settings()
    monkeypatch.delenv("TUSSIS_MAX_BYTES")
    with pytest.raises(SettingsInvalid, match="TUSSIS_BROKER_URL is wrong") as refused:
        load_settings(broker_url=[SECRET])
    assert_not_shown(str(refused.value))
