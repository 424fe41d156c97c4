"""docs/webhooks.md and docs/operate.md: the code in them works, and the login of a notifier has the rights it needs."""

from __future__ import annotations

import base64
import os
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis
from click.testing import CliRunner

from tests.support.compose import compose, make_env
from tests.support.notifying import NAME, SECRET, end_job, running_notifier, wait_for
from tests.support.processes import ROOT
from tests.support.receiver import Receiver, accept, status
from tests.support.store import a_claim, a_job, a_result, claimed
from tests.support.tables import code, table
from tussis.producer.cli import root
from tussis.shared.broker import connect
from tussis.shared.ledger import Ledger
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store
from tussis.worker.notify import schedule
from tussis.worker.notify.intake import ReplaySpan
from tussis.worker.notify.outbox import Outbox

WEBHOOKS = (ROOT / "docs" / "webhooks.md").read_text(encoding="utf-8")
OPERATE = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
#: The example of the Standard Webhooks specification.
EXAMPLE = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
EXAMPLE_BODY = b'{"test": 2432232314}'
OTHER = "whsec_" + base64.b64encode(b"o" * 24).decode()


def block(text: str, language: str) -> str:
    """The first block in this language."""
    found = re.search(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


def verify_in_python(secret: str, headers: dict[str, str], body: bytes, **options: float) -> bool:
    names: dict[str, Any] = {}
    exec(block(WEBHOOKS, "python"), names)
    return bool(names["verify"](secret, headers, body, **options))


def verify_in_shell(secret: str, headers: dict[str, str], body: bytes, folder: Path) -> bool:
    (folder / "body").write_bytes(body)
    variables = {name.upper().replace("-", "_"): headers[name] for name in EXAMPLE}
    run = subprocess.run(
        ["/bin/sh", "-c", block(WEBHOOKS, "sh")],
        env={"PATH": os.environ["PATH"], "SECRET": secret, **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.stdout in ("valid\n", "invalid\n"), run.stderr
    assert (run.returncode == 0) == (run.stdout == "valid\n")
    return run.returncode == 0


def test_both_verify_the_published_example_and_nothing_else(tmp_path: Path) -> None:
    several = EXAMPLE | {"webhook-signature": f"v1,AAAA {EXAMPLE['webhook-signature']}"}
    forged = EXAMPLE | {"webhook-signature": "v1,AAAA v1,"}
    for secret, headers, body, valid in (
        (SECRET, EXAMPLE, EXAMPLE_BODY, True),
        (SECRET, several, EXAMPLE_BODY, True),
        (SECRET, forged, EXAMPLE_BODY, False),
        (OTHER, EXAMPLE, EXAMPLE_BODY, False),
        (SECRET, EXAMPLE, EXAMPLE_BODY + b" ", False),
        (SECRET, EXAMPLE | {"webhook-id": "msg_other"}, EXAMPLE_BODY, False),
        (SECRET, EXAMPLE | {"webhook-timestamp": "1614265331"}, EXAMPLE_BODY, False),
    ):
        assert verify_in_python(secret, headers, body, tolerance_s=1e12) == valid
        assert verify_in_shell(secret, headers, body, tmp_path) == valid
    assert not verify_in_python(SECRET, EXAMPLE, EXAMPLE_BODY), "it is years old"


def test_both_verify_what_a_notifier_sends(broker_url: str, receiver: Receiver, tmp_path: Path) -> None:
    client: Any = connect(broker_url)
    with running_notifier(broker_url, receiver.url):
        end_job(Ledger(client), key="ä 🎤.wav")
        wait_for(lambda: receiver.requests, "the request")
    [request] = receiver.requests
    for secret, valid in ((SECRET, True), (OTHER, False)):
        assert verify_in_python(secret, request.headers, request.body) == valid
        assert verify_in_shell(secret, request.headers, request.body, tmp_path) == valid
    assert request.headers["content-type"] == "application/json"
    headers = {code(row[0]) for row in table(ROOT / "docs" / "webhooks.md", "header")}
    assert headers == {name for name in request.headers if name.startswith("webhook-")}
    assert {code(row[0]) for row in table(ROOT / "docs" / "webhooks.md", "field of the body")} == set(request.document)
    client.close()


def test_the_limits_are_those_of_the_code() -> None:
    from tussis.worker.notify import notifier, outbox, sender

    rows = dict(table(ROOT / "docs" / "webhooks.md", "limit"))
    limits = sender.TimeLimits()
    assert rows["host name, connection and TLS handshake"] == f"{limits.connect_s:g} s"
    assert rows["request and answer"].startswith(f"{limits.answer_s:g} s ")
    assert f"at most {sender.MAX_ANSWER_BYTES // 1024} KiB" in rows["body of the answer"]
    delay = rows["delay before the next attempt"]
    assert f"{schedule.FIRST_DELAY_S:g} s, doubled each time up to {schedule.LONGEST_DELAY_S / 60:g} minutes" in delay
    assert (schedule.LONGEST_RETRY_AFTER_S, schedule.RETRY_FOR_S, schedule.LONGEST_PAUSE_S) == (3600, 86_400, 60)
    assert (notifier.MAX_WAITING, outbox.UNDELIVERED_KEPT, outbox.LEASE_S) == (10_000, 10_000, 15)


def test_the_login_of_a_notifier_is_enough_and_can_do_nothing_else(
    broker_url: str, receiver: Receiver, store: Store, model: ModelFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "RETRY_FOR_S", 0.0)
    admin: Any = redis.Redis.from_url(broker_url)
    found = re.search(r"^ACL SETUSER notifier on >PASSWORD (.+)$", OPERATE, re.MULTILINE)
    assert found
    # The tests use a database other than 0.
    admin.execute_command("ACL", "SETUSER", "notifier", "reset", "on", ">secret", *found[1].split(), "+select")
    parts = urlsplit(broker_url)
    url = urlunsplit(parts._replace(netloc=f"notifier:secret@{parts.hostname}:{parts.port}"))
    admin.acl_log_reset()
    try:
        ledger, outbox = Ledger(connect(broker_url)), Outbox(admin, "the broker", NAME)
        receiver.behaviour = status(500)
        claim = claimed(store.claim(a_claim(a_job(), model)))
        assert store.complete(claim, a_result())
        end_job(ledger)
        with running_notifier(url, receiver.url, store):
            wait_for(lambda: outbox.counts() == (0, 1), "one that was given up")
            receiver.behaviour = accept
            outbox.set_state(replay=ReplaySpan(0.0, 9e9).to_json())
            for words in (["list"], ["status"], ["redeliver", "--all"], ["drop", "--all"], ["reopen"]):
                run = CliRunner().invoke(root, ["notify", *words, "--name", NAME], env={"TUSSIS_BROKER_URL": url})
                assert run.exception is None or isinstance(run.exception, SystemExit), run.output
            wait_for(lambda: len(receiver.requests) == 3, "the replay and the webhook that was given up")
        denied = [f"{entry['object']} ({entry['reason']})" for entry in admin.acl_log()]
        assert denied == []
        client: Any = redis.Redis.from_url(url)
        for command in (
            ["XADD", "tussis.outcomes", "*", "outcome", "x"],
            ["XDEL", "tussis.outcomes", "1-1"],
            ["DEL", "tussis.outcomes"],
            ["GET", "tussis.outcome:x"],
            ["HGETALL", "tussis.ledger"],
            ["ZADD", "tussis.open", "1", "x"],
            ["EVAL", "return redis.call('DEL', KEYS[1])", "1", "tussis.outcomes"],
            ["FLUSHDB"],
        ):
            with pytest.raises(redis.ResponseError):
                client.execute_command(*command)
        client.close()
    finally:
        admin.execute_command("ACL", "DELUSER", "notifier")
        admin.close()


def test_the_compose_file_of_a_notifier_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "compose.notify.yml"
    section = OPERATE.split("\n## Deliver outcomes by HTTP\n", 1)[1]
    path.write_text(block(section, "yaml").replace("file: docker-compose.yml", f"file: {ROOT}/docker-compose.yml"))
    env = make_env(tmp_path)
    files = ("--file", ROOT / "docker-compose.yml", "--file", path)
    refused = compose("--env-file", env, *files, "--profile", "tools", "config", "--quiet")
    assert "WEBHOOK_URL is missing a value" in refused.stderr
    env.write_text(env.read_text() + f"WEBHOOK_URL=https://example.org/\nWEBHOOK_SECRET={SECRET}\n")
    accepted = compose("--env-file", env, *files, "--profile", "tools", "config", "--quiet")
    assert (accepted.returncode, accepted.stderr) == (0, "")
