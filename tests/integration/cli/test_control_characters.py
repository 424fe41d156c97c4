"""What others wrote neither breaks a line of a command nor reaches the terminal as a command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.deployment import Deployment
from tests.support.outcomes import failed, succeeded
from tests.support.store import a_claim, a_job, a_result, claimed, model_facts
from tussis.producer.cli import root
from tussis.shared.queues import OUTCOMES_KEY, WORKERS_KEY
from tussis.shared.text import UNSAFE, printable

NASTY = "a\n\r\tb\x1b]0;evil\x07\x9b31m\x85\u2028\u202ec\x7f"
KEY = f"2026/{NASTY}.wav"
URI = f"s3://recordings/{KEY}"


class World:
    """A deployment in which all that others write is hostile."""

    def __init__(self, deployment: Deployment, folder: Path) -> None:
        self.deployment = deployment
        store, model = deployment.store, model_facts()
        self.folder = folder
        self.open = a_job(key=KEY, etag="open", metadata={"site": NASTY, NASTY: NASTY})
        deployment.ledger.open(self.open)
        self.done = a_job(key=KEY, etag="e1", metadata={"site": NASTY})
        store.complete(claimed(store.claim(a_claim(self.done, model))), a_result())
        self.failed = a_job(key=KEY, etag="e2")
        store.fail(claimed(store.claim(a_claim(self.failed, model, etag="e2"))), "corrupt", f"libx says {NASTY}")
        store.dead_letter(json.dumps({"job_id": NASTY}), NASTY, "malformed_message", f"field {NASTY}")
        for job, outcome in ((self.done, succeeded(self.done)), (self.failed, failed(self.failed))):
            deployment.ledger.open(job)
            deployment.ledger.close(job, outcome)
        client = deployment.ledger._client
        now = client.time()[0]
        entry = {"worker": f"cpu@{NASTY}", "device": "cpu", "children": 1, "ready": 0, "holding": [NASTY]}
        entry |= {"model": NASTY, "started_at": now, "seen_at": now + 600}
        client.hset(WORKERS_KEY, NASTY, json.dumps(entry))

    def run(self, *arguments: str, given: str | None = None) -> tuple[int, str]:
        done = CliRunner().invoke(root, arguments, env=self.deployment.environment, input=given)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output


@pytest.fixture
def world(deployment: Deployment, tmp_path: Path) -> World:
    return World(deployment, tmp_path)


def test_no_command_prints_what_others_wrote_as_it_is(world: World) -> None:
    line = json.dumps({"uri": URI, "etag": "new", "metadata": {"site": "north"}}) + "\n"
    wrong = json.dumps({"uri": f"http://{NASTY}", "etag": "e"}) + "\n"
    commands: list[tuple[tuple[str, ...], str | None]] = [
        (("enqueue", "-"), line + wrong),
        (("enqueue", "-", "--json"), line + wrong),
        (("enqueue", "-", "--wait", "--timeout", "0"), line),
        (("enqueue", f"http://{NASTY}"), None),
        (("enqueue", "--device", NASTY, "s3://b/k"), None),
        (("enqueue", "--model", NASTY, "-"), line),
        (("batch", NASTY), None),
        (("status",), None),
        (("status", "--json"), None),
        (("results",), None),
        (("results", "--json"), None),
        (("results", "--segments"), None),
        (("failures",), None),
        (("failures", "--json"), None),
        (("failures", "--by-class"), None),
        (("failures", "show", "2"), None),
        (("failures", "retry", "2", "--yes"), None),
        (("failures", "discard", "2", "--yes"), None),
        (("outcomes", "--group", "g", "--idle", "0"), None),
        (("cancel", "--prefix", "s3://recordings/2026/"), None),
        (("cancel", NASTY), None),
        (("job", NASTY), None),
        (("sweep", f"s3://{NASTY}"), None),
        (("worker", "cpu", "--model", f"{world.folder}/{NASTY}.onnx"), None),
        (("export", "results", "--out", f"{world.folder}/{NASTY}/x.csv"), None),
        (("report", URI, "--out", f"{world.folder}/r.html"), None),
        (("analyze", f"{world.folder}/{NASTY}.wav"), None),
    ]
    for job in (world.open, world.done, world.failed):
        commands += [(("job", job.job_id), None), (("job", job.job_id, "--json"), None)]
    shown = 0
    for arguments, given in commands:
        _, text = world.run(*arguments, given=given)
        for row in text.split("\n"):
            assert not UNSAFE.search(row.replace("\t", "")), (arguments, row)
            assert "\tb" not in row, (arguments, row)
        shown += printable(NASTY)[1:9] in text or "\\\\n" in text
    page = (world.folder / "r.html").read_text(encoding="utf-8")
    assert printable(URI) in page
    assert not UNSAFE.search(page.replace("\n", "").replace("\t", ""))
    assert shown >= 15, "the commands do not show the hostile texts"


def test_a_recording_is_one_line_of_enqueue(world: World) -> None:
    line = json.dumps({"uri": URI, "etag": "another"}) + "\n"
    status, text = world.run("enqueue", "-", given=line)
    assert status == 0, text
    first, *_ = text.splitlines()
    assert first.split("\t")[1] == printable(URI)
    assert world.deployment.ledger._client.exists(OUTCOMES_KEY)
