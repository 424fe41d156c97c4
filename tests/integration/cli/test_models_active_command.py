"""``tussis models activate`` and ``list``, and what ``tussis status`` says about the active model."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import redis
from click.testing import CliRunner, Result

from tests.support.store import a_claim, a_job, a_result, claimed, execute, model_facts
from tussis.producer.cli import root
from tussis.shared.queues import WORKERS_KEY
from tussis.shared.store.repository import Store

ONE = model_facts()
TWO = model_facts(version="2", sha256="b" * 64)


@pytest.fixture
def run(store: Store, store_url: str, broker_url: str) -> Any:
    """The command line, in a deployment whose workers have served cough@1 and then cough@2."""
    for model in (ONE, TWO):
        store.register_model(model)
    store.complete(claimed(store.claim(a_claim(a_job(model="cough@1"), ONE))), a_result())

    def run(*arguments: str) -> Result:
        environment = {"TUSSIS_DATABASE_URL": store_url, "TUSSIS_BROKER_URL": broker_url}
        return CliRunner().invoke(root, arguments, env=environment)

    return run


def worker(broker_url: str, name: str, model: str) -> None:
    """Enter a worker into the broker's list."""
    now = time.time()
    entry = {"worker": name, "device": "cpu", "children": 1, "ready": 1, "holding": [], "model": model}
    client = redis.Redis.from_url(broker_url)
    client.hset(WORKERS_KEY, name, json.dumps(entry | {"started_at": now - 5, "seen_at": now}))
    client.close()


def test_activate_tells_what_was_active_and_how_to_go_back(run: Any, store: Store) -> None:
    done = run("models", "activate", "cough@1", "--by", "Ada")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "cough@1 is the active model",
        "before: cough@2; to go back: tussis models activate cough@2",
    ]
    found = store.active_model()
    assert found is not None
    assert (found.model, found.explicit) == ("cough@1", True)
    again = run("models", "activate", "cough@1")
    assert again.stdout.startswith("cough@1 is the active model, as before.")
    [first, _] = store.models()
    assert first.activated_by is not None
    assert "@" in first.activated_by


def test_what_is_wrong_is_one_line(run: Any, store: Store, store_url: str) -> None:
    execute(store_url, "UPDATE models SET last_served_at = now() - interval '2 min' WHERE version = '2'")
    for arguments, words in (
        (["cough@7"], "no worker has served 'cough@7'"),
        (["cough"], "'cough' is not NAME@VERSION"),
        (["@1"], "'@1' is not NAME@VERSION"),
        (["cough@2"], "no worker serves it"),
        (["cough@1", "--by", " "], "--by takes 1 to 200 printable characters"),
        (["cough@1", "--by", "a\nb"], "--by takes 1 to 200 printable characters"),
    ):
        done = run("models", "activate", *arguments)
        assert done.exit_code != 0
        assert words in done.output, done.output
        assert "Traceback" not in done.output
    found = store.active_model()
    assert found is not None
    assert not found.explicit

    forced = run("models", "activate", "cough@2", "--force", "--json")
    assert forced.exit_code == 0, forced.output
    report = json.loads(forced.stdout)
    assert (report["model"], report["before"], len(report["skipped"])) == ("cough@2", "cough@2", 2)


def test_the_list_as_a_table_and_as_json(run: Any, broker_url: str) -> None:
    worker(broker_url, "cpu@a", "cough@1")
    worker(broker_url, "cpu@b", "cough@1")
    assert run("models", "activate", "cough@1", "--by", "Ada").exit_code == 0
    heading, first, second = run("models", "list").stdout.splitlines()
    assert heading.split()[:4] == ["model", "state", "workers", "results"]
    assert first.split()[:6] == ["cough@1", "active", "2", "1", "documented", "0.61"]
    assert first.rstrip().endswith("by Ada")
    assert second.split()[:5] == ["cough@2", "0", "0", "documented", "0.61"]
    assert second.rstrip().endswith("never")
    done = run("models", "list", "--json")
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["model"], one["active"], one["workers"], one["results"]) for one in objects] == [
        ("cough@1", True, 2, 1),
        ("cough@2", False, 0, 0),
    ]
    assert (objects[0]["activated_by"], objects[0]["forced"], objects[1]["activated_at"]) == ("Ada", False, None)


def test_a_list_without_models(store: Store, store_url: str, broker_url: str) -> None:
    environment = {"TUSSIS_DATABASE_URL": store_url, "TUSSIS_BROKER_URL": broker_url}
    done = CliRunner().invoke(root, ["models", "list"], env=environment)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("No model yet")


def test_status_names_a_worker_with_another_model(run: Any, broker_url: str) -> None:
    worker(broker_url, "cpu@b", "cough@2")
    quiet = run("status")
    assert quiet.exit_code == 0, quiet.output
    assert "active" not in quiet.stdout  # one model, never activated: as in a deployment that knows none of this

    worker(broker_url, "cpu@a", "cough@1")
    said = run("status").stdout
    assert "active model cough@2 (the newest model that workers serve, active since" in said
    assert "cpu@a serves cough@1, active is cough@2: it answers only jobs that name its model" in said
    assert "no live worker" not in said
    report = json.loads(run("status", "--json").stdout)["active_model"]
    assert (report["model"], report["explicit"], report["workers"]) == ("cough@2", False, 1)


def test_status_names_an_active_model_that_no_worker_serves(run: Any, broker_url: str) -> None:
    worker(broker_url, "cpu@b", "cough@2")
    assert run("models", "activate", "cough@1").exit_code == 0
    said = run("status").stdout
    assert "active model cough@1 (activated" in said
    assert "no live worker serves the active model cough@1: jobs that name no model wait for it (0 messages" in said
