"""``tussis notify`` as a process, its subcommands, its metrics and its log."""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result
from prometheus_client.parser import text_string_to_metric_families

from tests.support.notifying import SECRET, end_job, wait_for
from tests.support.processes import ROOT, Running, Spawn
from tests.support.receiver import Receiver, accept, status
from tests.support.tables import code, table
from tussis.producer.cli import root
from tussis.shared.ledger import Ledger
from tussis.worker.notify.outbox import Outbox
from tussis.worker.notify.webhook import Webhook

START_S = 60.0


@pytest.fixture
def start(spawn: Spawn, broker_url: str, receiver: Receiver) -> Callable[..., Running]:
    """Start ``tussis notify`` towards the receiver."""

    def start(*words: str, **settings: str) -> Running:
        environment = {
            "TUSSIS_BROKER_URL": broker_url,
            "TUSSIS_WEBHOOK_SECRET": SECRET,
            "TUSSIS_WEBHOOK_URL": f"{receiver.url}?token=PATHSECRET",
            "TUSSIS_METRICS_HOST": "127.0.0.1",
        }
        return spawn("notify", "--allow-network", "127.0.0.0/8", *words, environment=environment | settings)

    return start


@pytest.fixture
def invoke(broker_url: str) -> Callable[..., Result]:
    """Run a subcommand."""

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(root, ["notify", *words], env={"TUSSIS_BROKER_URL": broker_url})

    return invoke


def given_up(client: Any, *uris: str) -> list[str]:
    """Webhooks that were given up; returns their ids."""
    outbox = Outbox(client, "the broker", "webhook", "a-test")
    assert outbox.lead() is None
    webhooks = [
        Webhook(
            webhook_id=f"msg_{number}",
            recording=uri,
            body=json.dumps({"type": "job.failed", "timestamp": "2026-11-29T00:00:00.000Z", "data": {"uri": uri}}),
            attempts=50,
            first_at=1_790_000_000.0,
            reason="status 500",
        )
        for number, uri in enumerate(uris)
    ]
    outbox.add(webhooks)
    for webhook in webhooks:
        outbox.give_up(webhook)
    outbox.resign()
    return [webhook.webhook_id for webhook in webhooks]


def test_it_delivers_logs_measures_and_ends_at_a_signal(
    start: Callable[..., Running], client: Any, receiver: Receiver, invoke: Callable[..., Result]
) -> None:
    ledger = Ledger(client)
    answers = [status(500)]
    receiver.behaviour = lambda handler: (answers.pop() if answers else accept)(handler)
    running = start("--metrics-port", "0")
    ready = running.wait_for_event("notifier_ready", START_S)
    assert ready["endpoint"] == receiver.url.removesuffix("/hook")
    failing = end_job(ledger)
    running.wait_for_event("webhook_failed", START_S, reason="status 500", uri=failing.uri)
    delivered = end_job(ledger)
    event = running.wait_for_event("webhook_delivered", START_S, uri=delivered.uri)
    assert event["webhook_id"] == receiver.requests[-1].webhook_id
    assert receiver.requests[0].path == "/hook?token=PATHSECRET"

    port = running.wait_for_event("metrics_served", START_S)["port"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    every = [sample for family in families for sample in family.samples]
    samples = {(sample.name, sample.labels.get("result", "")): sample.value for sample in every}
    assert samples["tussis_webhooks_total", "delivered"] == 1
    assert samples["tussis_webhooks_total", "failed"] == 1
    assert samples["tussis_webhooks_waiting", ""] == 1
    assert samples["tussis_notifier_working", ""] == 1
    served = {(one.name + ("_total" if one.type == "counter" else ""), one.type) for one in families}
    documented = {(code(row[0]), row[1]) for row in table(ROOT / "docs" / "metrics.md", "notifier metric")}
    assert served == documented

    shown = invoke("status")
    assert shown.exit_code == 0, shown.output
    assert "1 of them failed" in shown.stdout
    assert "status 500" in shown.stdout
    running.signal(signal.SIGTERM)
    assert running.wait(30) == 0
    assert running.events[-1]["event"] == "notifier_stopped"
    facts = json.loads(invoke("status", "--json").stdout)
    assert (facts["working"], facts["waiting"], facts["failing"]) == (None, 1, 1)
    for secret in (SECRET.removeprefix("whsec_"), "PATHSECRET"):
        assert secret not in "".join([*running.stdout, *running.stderr, *running.argv])


def test_sigterm_lets_a_delivery_end(start: Callable[..., Running], client: Any, receiver: Receiver) -> None:
    def slow(handler: Any) -> None:
        time.sleep(1.5)
        accept(handler)

    receiver.behaviour = slow
    running = start()
    end_job(Ledger(client))
    wait_for(lambda: receiver.requests, "the request")
    running.signal(signal.SIGTERM)
    assert running.wait(30) == 0
    running.wait_for_event("webhook_delivered", 1)
    assert Outbox(client, "the broker", "webhook").counts() == (0, 0)


def test_410_is_one_line(start: Callable[..., Running], client: Any, receiver: Receiver) -> None:
    receiver.behaviour = status(410)
    end_job(Ledger(client))
    running = start()
    assert running.wait(START_S) == 1
    assert running.stderr[-1].startswith("tussis: the receiver at http://127.0.0.1:")
    assert "410 (Gone)" in running.stderr[-1]


def test_a_kill_between_delivery_and_its_record_repeats_the_delivery_with_the_same_id(
    start: Callable[..., Running], client: Any, receiver: Receiver
) -> None:
    receiver.behaviour = receiver.hang
    outcome = end_job(Ledger(client))
    running = start()
    wait_for(lambda: receiver.requests, "the request")
    running.signal(signal.SIGKILL)
    running.wait(30)
    receiver.behaviour = accept
    again = start()
    again.wait_for_event("webhook_delivered", START_S)
    first, second = receiver.requests
    assert (first.webhook_id, first.body) == (second.webhook_id, second.body)
    assert first.uri == outcome.uri


def test_the_list_of_those_that_were_given_up(client: Any, invoke: Callable[..., Result]) -> None:
    assert invoke("list").stdout == "No webhook was given up.\n"
    ids = given_up(client, "s3://b/a.wav", "s3://b/\x1b[31m.wav", "s3://b/c.wav")

    assert invoke("status").exit_code == 1
    lines = invoke("list").stdout.splitlines()
    assert lines[0] == "msg_0\t2026-09-21 14:13:20\t50 attempts\tstatus 500\ts3://b/a.wav"
    assert "\x1b" not in lines[1]
    assert invoke("list", "--limit", "2").stdout.splitlines()[2:] == ["There are more: use --limit."]
    documents = [json.loads(line) for line in invoke("list", "--json").stdout.splitlines()]
    assert [document["webhook_id"] for document in documents] == ids
    assert documents[0]["body"]["data"] == {"uri": "s3://b/a.wav"}

    assert invoke("drop", "--all", "--dry-run").stdout == "3 webhooks would be dropped\n"
    assert invoke("redeliver", "msg_0").stdout == "1 webhooks delivered again\n"
    wrong = invoke("drop", "msg_0", "msg_1")
    assert (wrong.exit_code, wrong.stdout) == (1, "1 webhooks dropped\n")
    assert "no webhook with the id msg_0" in wrong.stderr
    assert invoke("redeliver", "--all").stdout == "1 webhooks delivered again\n"
    assert json.loads(invoke("status", "--json").stdout)["waiting"] == 2
    assert invoke("list").stdout == "No webhook was given up.\n"


def test_reopen(client: Any, invoke: Callable[..., Result]) -> None:
    assert "not stopped" in invoke("reopen").stdout
    Outbox(client, "the broker", "webhook").set_state(gone="x")
    assert "410 (Gone)" in invoke("status").stdout
    assert "reopened" in invoke("reopen").stdout
    assert json.loads(invoke("status", "--json").stdout)["gone"] is False


@pytest.mark.parametrize(
    ("words", "exit_status", "said"),
    [
        (["--replay"], 2, "belong together"),
        (["--since", "1h"], 2, "belong together"),
        (["--replay", "--since", "2100-01-01"], 2, "in the future"),
        (["--name", "a:b"], 2, "letters, digits"),
        (["--allow-network", "10.0.0.1/8"], 2, "10.1.0.0/16"),
        (["--name", "a", "list"], 2, "after the subcommand"),
        (["drop"], 2, "Give IDs"),
        (["redeliver", "x", "--all"], 2, "Give IDs"),
        ([], 1, "TUSSIS_WEBHOOK_URL"),
        (["--url", "https://user:pw@example.org"], 1, "must not contain a user name"),
        (["--url", "https://example.org"], 1, "openssl rand"),
    ],
)
def test_wrong_calls(invoke: Callable[..., Result], words: list[str], exit_status: int, said: str) -> None:
    result = invoke(*words)
    assert result.exit_code == exit_status, result.output
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
