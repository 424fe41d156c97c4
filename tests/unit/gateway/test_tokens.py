"""Tokens from the settings."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tussis.shared.errors import SettingsInvalid
from tussis.shared.settings import load_settings
from tussis.worker.gateway.tokens import Tokens, tokens_of

LONG = "0123456789abcdef"


def given(**settings: Any) -> Tokens | None:
    return tokens_of(load_settings(**settings))


def test_tokens_have_names() -> None:
    digest = hashlib.sha256(b"secret token").hexdigest()
    tokens = given(serve_tokens=f"a:{LONG} b:sha256:{digest}\n c:{LONG}=")

    assert tokens is not None
    assert len(tokens) == 3
    assert [tokens.name_of(text) for text in (LONG, "secret token", LONG + "=")] == ["a", "b", "c"]
    assert [tokens.name_of(text) for text in ("", LONG[:-1], digest, f"sha256:{digest}", "\udcff")] == [None] * 5


def test_a_file_may_have_comments(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# the clinic\nclinic:{LONG}\n\n  # nobody:{LONG}x\n")

    tokens = given(serve_tokens_file=path)

    assert tokens is not None
    assert (len(tokens), tokens.name_of(LONG)) == (1, "clinic")


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({}, "no tokens"),
        ({"serve_tokens": " "}, "no tokens"),
        ({"serve_tokens": LONG}, "NAME:TOKEN"),
        ({"serve_tokens": "a:short"}, "NAME:TOKEN"),
        ({"serve_tokens": f"a:{LONG} a:{LONG}x"}, "twice"),
        ({"serve_tokens": f"a/b:{LONG}"}, "NAME:TOKEN"),
        ({"serve_tokens": f"a:{LONG}", "serve_tokens_file": Path("/none")}, "both set"),
        ({"serve_tokens_file": Path("/nonexistent/tokens")}, "cannot read /nonexistent/tokens"),
        ({"serve_tokens": f"a:{LONG}", "serve_without_tokens": True}, "unset one"),
        ({"serve_without_tokens": True, "serve_host": "0.0.0.0"}, "loopback"),
        ({"serve_without_tokens": True, "serve_host": "example.org"}, "loopback"),
    ],
)
def test_wrong_tokens_are_refused_without_being_shown(settings: dict[str, Any], part: str) -> None:
    with pytest.raises(SettingsInvalid, match=part) as caught:
        given(**settings)

    assert LONG not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_a_loopback_address_may_go_without(host: str) -> None:
    assert given(serve_without_tokens=True, serve_host=host) is None
