"""Logs for people are safe on a terminal; JSON logs hold what was said."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from tussis.worker import logs

KEY = "s3://b/\x1b[31m\n\u202e.wav"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    structlog.reset_defaults()


def say() -> None:
    log = logs.get("test")
    log.info("job_done", uri=KEY, metadata={"a": KEY}, ms=4)
    logging.getLogger("botocore").warning("about %s", KEY)
    try:
        raise ValueError(KEY)
    except ValueError:
        log.exception("internal_fault", uri=KEY)


def test_console_logs_are_printable(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("console", "info")
    say()
    told = capsys.readouterr().err
    assert "\x1b" not in told
    assert "\u202e" not in told
    lines = told.splitlines()
    assert "s3://b/\\x1b[31m\\n\\u202e.wav" in lines[0]
    assert "about s3://b/" in lines[1]  # with blanks in it, structlog quotes it once more
    assert any(line.startswith("Traceback (most recent call last)") for line in lines)
    assert any(line.startswith("ValueError: s3://b/") for line in lines)


def test_json_logs_are_exact(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    say()
    first, _, last = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["uri"], first["metadata"]) == (KEY, {"a": KEY})
    assert last["exception"].startswith("Traceback (most recent call last)")
