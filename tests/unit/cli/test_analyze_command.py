"""`tussis analyze` when one source cannot be had: which faults end the run, and which are that source's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tussis.shared.errors import StorageAccessDenied, StorageCredentials, StorageUnavailable, TussisError
from tussis.worker.cli.analyze import analyze
from tussis.worker.pipeline.analysis import Analyzer


@pytest.fixture
def raised(monkeypatch: pytest.MonkeyPatch) -> dict[str, TussisError]:
    """Source -> the error that it meets; every other source is answered."""
    errors: dict[str, TussisError] = {}

    def answer(self: Analyzer, source: str) -> dict[str, Any]:
        if source in errors:
            raise errors[source]
        return {"uri": source, "decision": True}

    monkeypatch.setattr(Analyzer, "analyze", answer)
    return errors


@pytest.mark.parametrize("error", [StorageAccessDenied("no right"), StorageUnavailable("no answer")], ids=type)
def test_a_source_that_cannot_be_had_leaves_the_others(
    error: TussisError, raised: dict[str, TussisError], tiny_model: Path
) -> None:
    raised["s3://b/closed"] = error
    ended = CliRunner().invoke(analyze, ["s3://b/closed", "s3://b/open", "--model", str(tiny_model), "--json"])
    assert ended.exit_code == 1
    refused, answered = map(json.loads, ended.stdout.splitlines())
    assert refused == {"uri": "s3://b/closed", "error": {"class": error.error_class, "message": str(error)}}
    assert answered["uri"] == "s3://b/open"


def test_what_stands_in_the_way_of_all_ends_the_run(raised: dict[str, TussisError], tiny_model: Path) -> None:
    raised["s3://b/a"] = StorageCredentials("expired")
    ended = CliRunner().invoke(analyze, ["s3://b/a", "s3://b/b", "--model", str(tiny_model), "--json"])
    assert isinstance(ended.exception, StorageCredentials)
    assert ended.stdout == ""
