"""The audit trail: each deed leaves one row, in its own transaction, and no row names a recording."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, execute, refused, rows
from tussis.producer.cli import root
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store

KEY = "private/1.wav"


@pytest.fixture
def run(broker_url: str, store_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("TUSSIS_BROKER_URL", broker_url)
    monkeypatch.setenv("TUSSIS_DATABASE_URL", store_url)

    def invoke(*words: str) -> Result:
        done = CliRunner().invoke(root, list(words), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done

    return invoke


def actions(store_url: str) -> list[str]:
    return [action for (action,) in rows(store_url, "SELECT action FROM audit_trail ORDER BY id")]


def test_every_deed_is_in_the_trail_and_no_recording_is_named(
    store: Store, store_url: str, model: ModelFacts, run: Any, tmp_path: Path
) -> None:
    other = replace(model, version="2", sha256="b" * 64)
    for one in (model, other):
        store.register_model(one)
    execute(store_url, "UPDATE models SET last_served_at = now()")
    store.complete(claimed(store.claim(a_claim(a_job(key=KEY, model="cough@1"), model))), a_result())
    failure = refused(store.refuse(a_refusal(a_job(key=KEY, model="cough@1", again=True))))

    run("models", "activate", "cough@1", "--by", "me")
    run("models", "shadow", "cough@2", "--share", "0.5", "--by", "me")
    run("models", "shadow", "--stop", "--by", "me")
    run("failures", "discard", str(failure))
    run("outcomes", "replay", "--since", "1h", "--dry-run")
    run("outcomes", "replay", "--since", "1h")
    run("export", "--format", "csv", "--out", str(tmp_path / "out.csv"), "--prefix", "s3://recordings/private/")
    execute(store_url, "UPDATE analyses SET created_at = now() - interval '9 d', finished_at = now() - interval '9 d'")
    run("retain", "--older-than", "5d", "--results", "--yes")
    run("forget", f"s3://recordings/{KEY}", "--yes", "--by", "me")

    expected = ["activate", "shadow", "shadow_stop", "discard", "replay", "export", "retain", "forget", "forget_done"]
    assert actions(store_url) == expected
    [(text,)] = rows(store_url, "SELECT string_agg(audit_trail::text, ' ') FROM audit_trail")
    assert "private" not in text
    listed = [json.loads(line) for line in run("trail", "--json").stdout.splitlines()]
    assert [deed["action"] for deed in listed] == expected
    assert {deed["actor"].split("@")[0] for deed in listed} == {"me", getpass.getuser()}
    assert listed[6]["details"]["analyses"] == 2
    of_key = run("trail", "--of", f"s3://recordings/{KEY}", "--since", "1h").stdout.splitlines()
    assert [line.split("\t")[1] for line in of_key] == ["discard", "forget", "forget_done"]
    assert run("trail", "--subject", "nobody").stdout == ""


def test_a_deed_that_fails_leaves_no_row(store: Store, store_url: str, model: ModelFacts) -> None:
    execute(store_url, "ALTER TABLE analyses ADD CONSTRAINT no_discard CHECK (state <> 'discarded')")
    failure = refused(store.refuse(a_refusal(a_job(key=KEY))))
    with pytest.raises(Exception, match="no_discard"):
        store.discard([failure])
    assert actions(store_url) == []


def test_a_login_that_may_only_read_exports_without_a_row(store_url: str, run: Any, tmp_path: Path) -> None:
    execute(store_url, "ALTER DATABASE " + store_url.rsplit("/", 1)[1] + " SET default_transaction_read_only = on")
    done = run("export", "--format", "csv", "--out", str(tmp_path / "out.csv"))
    assert "is not in the audit trail" in done.stderr
    assert (tmp_path / "out.csv").exists()
