"""Signatures: the published example of Standard Webhooks, rotation, and secrets that are wrong."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tussis.shared.errors import SettingsInvalid
from tussis.shared.settings import load_settings
from tussis.worker.notify.signing import Signer, signer_of

#: The example of the specification of Standard Webhooks and of its libraries.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EXAMPLE_ID, EXAMPLE_TIME, EXAMPLE_BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
EXAMPLE_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def signer(**settings: object) -> Signer:
    return signer_of(load_settings(**settings))


def test_the_published_example() -> None:
    assert signer(webhook_secret=SECRET).headers(EXAMPLE_ID, EXAMPLE_TIME, EXAMPLE_BODY) == {
        "webhook-id": EXAMPLE_ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": EXAMPLE_SIGNATURE,
    }


def test_during_a_rotation_each_secret_signs(tmp_path: Path) -> None:
    other = "whsec_" + base64.b64encode(b"k" * 32).decode()
    path = tmp_path / "secrets"
    path.write_text(f"{other}\n{SECRET}\n")

    both = signer(webhook_secret_file=path).headers(EXAMPLE_ID, EXAMPLE_TIME, EXAMPLE_BODY)["webhook-signature"]
    alone = signer(webhook_secret=other).headers(EXAMPLE_ID, EXAMPLE_TIME, EXAMPLE_BODY)["webhook-signature"]

    assert both == f"{alone} {EXAMPLE_SIGNATURE}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("plain-secret-text", "does not begin with whsec_"),
        ("whsec_$$$$secret", "not base64"),
        ("whsec_c2VjcmV0", "has 6 bytes"),
        ("whsec_" + "c2VjcmV0" * 20, "has 120 bytes"),
        (f"{SECRET} whsec_c2VjcmV0", "secret 2 in TUSSIS_WEBHOOK_SECRET has 6 bytes"),
        (" ", "has 0 secrets"),
        (f"{SECRET} " * 6, "has 6 secrets"),
    ],
)
def test_a_wrong_secret_is_not_shown(text: str, words: str) -> None:
    with pytest.raises(SettingsInvalid, match=words) as raised:
        signer(webhook_secret=text)
    assert "c2VjcmV0" not in str(raised.value)
    assert "secret-text" not in str(raised.value)


def test_one_place_for_secrets(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="neither"):
        signer()
    with pytest.raises(SettingsInvalid, match="both"):
        signer(webhook_secret=SECRET, webhook_secret_file=tmp_path)
    with pytest.raises(SettingsInvalid, match="cannot read"):
        signer(webhook_secret_file=tmp_path / "nothing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsInvalid, match="not text"):
        signer(webhook_secret_file=tmp_path / "binary")


def test_no_text_of_the_settings_or_the_signer_has_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUSSIS_WEBHOOK_SECRET", SECRET)
    settings = load_settings()
    assert SECRET[6:] not in f"{settings!r} {settings} {signer_of(settings)!r} {settings.model_dump_json()}"


@given(st.binary(max_size=200), st.integers(0, 2**33))
def test_another_body_or_time_has_another_signature(body: bytes, at: int) -> None:
    made = signer(webhook_secret=SECRET).headers(EXAMPLE_ID, at, body)["webhook-signature"]
    assert (made == EXAMPLE_SIGNATURE) == (body == EXAMPLE_BODY and at == EXAMPLE_TIME)
