"""Keys in logs: a keyed hash in their place."""

from __future__ import annotations

import json
import logging

import pytest
from click.testing import CliRunner

from tussis.producer import event_log
from tussis.producer.cli import root
from tussis.shared.errors import SettingsInvalid
from tussis.shared.hidden_keys import KeyHider, hider_of
from tussis.shared.settings import load_settings
from tussis.worker import logs

SECRET = "a secret of the logs"
KEY = "müller, anna: 7/it's.wav"
URI = f"s3://clinic/{KEY}"
HIDER = KeyHider(SECRET)
HASH = HIDER.hash("clinic", KEY)


def test_a_hash_depends_on_the_key_and_the_secret() -> None:
    assert len(HASH) == 16
    assert HIDER.hash("clinic", "other") != HASH != KeyHider(SECRET + "2").hash("clinic", KEY)
    assert HIDER.uri(URI) == f"s3://clinic/#{HASH}"


def test_the_key_of_the_event_is_replaced_and_the_rest_of_the_text_stays() -> None:
    for text in (f"{URI} has no bytes", f"no {KEY!r} has no bytes", f"{URI}: {URI} has no bytes"):
        hidden = HIDER.text(text, URI)
        assert hidden.endswith(" has no bytes")
        assert "müller" not in hidden
        assert HASH in hidden


def test_after_another_uri_the_rest_is_left_out() -> None:
    assert HIDER.text(f"about {URI} and more") == "about s3://clinic/(hidden: TUSSIS_LOG_KEYS)"
    assert HIDER.text(f"s3://clinic/#{HASH} is small") == f"s3://clinic/#{HASH} is small"


def test_the_log_of_a_worker_has_no_key(capsys: pytest.CaptureFixture[str]) -> None:
    for log_format in ("json", "console"):
        logs.configure(log_format, "info", HIDER)
        log = logs.get("test")
        log.info("job_done", uri=URI, ms=4.5, many=[URI], named={"it": URI})
        log.error("dead_letter", reason=f"key must be a string, not {KEY!r}")
        logging.getLogger("botocore").warning("about %s", URI)
        try:
            raise ValueError(f"{KEY} is wrong")
        except ValueError:
            log.exception("internal_fault", uri=URI)
    told = capsys.readouterr().err
    assert "anna" not in told
    assert told.count(HASH) > 6
    assert json.loads(told.splitlines()[0])["ms"] == 4.5
    assert logs.without_keys(URI) == "s3://clinic/(hidden: TUSSIS_LOG_KEYS)"
    logs.configure("json", "info")
    assert logs.without_keys(URI) == URI


def test_the_log_of_a_listener_has_no_key(capsys: pytest.CaptureFixture[str]) -> None:
    event_log.configure("json", "info", HIDER)
    event_log.EventLog("test").error("paused", reason=f"{URI} is refused")
    event_log.configure("json", "info")
    told = json.loads(capsys.readouterr().err)
    assert told["reason"] == "s3://clinic/(hidden: TUSSIS_LOG_KEYS)"


def test_the_command_prints_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUSSIS_LOG_SECRET", raising=False)
    assert hider_of(load_settings()) is None
    with pytest.raises(SettingsInvalid, match="TUSSIS_LOG_SECRET"):
        hider_of(load_settings(log_keys="hash"))
    monkeypatch.setenv("TUSSIS_LOG_SECRET", SECRET)
    done = CliRunner().invoke(root, ["log-key", URI], catch_exceptions=False)
    assert done.output == f"s3://clinic/#{HASH}\n"
