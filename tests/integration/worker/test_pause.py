"""Paused queues with real workers: nothing is taken, nothing is lost, and everybody says that it is a pause."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from typing import Any

from tests.support.deployment import Deployment
from tests.support.processes import TUSSIS
from tests.support.sounds import wav
from tests.support.waiting import wait_until
from tussis.shared.broker import connect
from tussis.shared.pauses import Pauses
from tussis.shared.queues import Device

SOON_S = 90.0
#: Longer than a worker needs to read the paused queues, and than a BRPOP lasts.
LONG_S = 6.0
#: Longer than the BRPOP that an idle worker sent before the pause.
BRPOP_S = 1.5


def ran(deployment: Deployment, *words: str) -> str:
    run = deployment.tussis(*words)
    assert run.wait(60) == 0, run.text
    return run.text


def test_a_paused_queue_is_left_alone_until_it_is_resumed(deployment: Deployment) -> None:
    worker = deployment.worker(concurrency=1, metrics_port=0)
    first = deployment.enqueue("a.wav", wav(1.0))
    deployment.wait_drained(SOON_S)
    assert "tussis.any\tpaused\n" in ran(deployment, "pause", "any", "--by", "night shift")
    worker.wait_for_event("queues_paused", SOON_S, queues=["tussis.any"])
    time.sleep(BRPOP_S)

    waits = deployment.enqueue("b.wav", wav(1.5))
    named = deployment.enqueue("c.wav", wav(1.5), model=deployment.analysis(first).model)
    other = deployment.enqueue("d.wav", wav(2.0), device=Device.CPU)
    worker.wait_for_event("job_done", SOON_S, job_id=other.job_id, outcome="succeeded")
    time.sleep(LONG_S)
    assert deployment.ledger.which_open([waits.job_id, named.job_id]) == {waits.job_id, named.job_id}
    depth = deployment.ledger.depth()
    assert (depth.total_waiting, depth.in_flight) == (2, 0)
    assert not [event for event in worker.events if event.get("event") == "lost_messages_sent_again"]

    status = ran(deployment, "status", "--json")
    report = json.loads(status[status.index("{") : status.rindex("}") + 1])
    [paused] = report["paused"]
    assert (paused["queue"], paused["by"]) == ("tussis.any", "night shift")
    assert abs(paused["since"] - time.time()) < 300
    assert "tussis.any is paused since" in ran(deployment, "status")
    for probe in ("live", "ready"):
        done = subprocess.run(
            [TUSSIS, "health", probe], env=deployment.environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout
    assert done.stdout.endswith(": ready (paused: tussis.any)\n")

    # A worker that starts now takes nothing either.
    worker.signal(signal.SIGTERM)
    assert worker.wait(SOON_S) == 0
    second = deployment.worker(concurrency=1)
    time.sleep(LONG_S)
    assert deployment.ledger.depth().total_waiting == 2

    assert "tussis.any\tresumed\n" in ran(deployment, "resume")
    deployment.wait_drained(SOON_S)
    second.wait_for_event("queues_paused", SOON_S, queues=[])
    assert {deployment.analysis(job).state.value for job in (waits, named)} == {"succeeded"}
    deployment.assert_accounted()


def test_what_is_in_work_finishes_and_a_restart_of_the_broker_ends_no_pause(deployment: Deployment) -> None:
    worker = deployment.worker(concurrency=1)
    long = deployment.enqueue("long.wav", wav(60.0))
    wait_until(lambda: deployment.ledger.depth().in_flight == 1, SOON_S, "the message to be taken")
    ran(deployment, "pause")
    worker.wait_for_event("queues_paused", SOON_S, queues=["tussis.any", "tussis.cpu", "tussis.gpu"])
    time.sleep(BRPOP_S)
    waits = deployment.enqueue("b.wav", wav(1.5))
    worker.wait_for_event("job_done", SOON_S, job_id=long.job_id, outcome="succeeded")
    deployment.servers.broker.kill()
    deployment.servers.broker.start()
    client: Any = connect(deployment.environment["TUSSIS_BROKER_URL"])
    assert [pause.queue for pause in Pauses(client).read()] == ["tussis.any", "tussis.cpu", "tussis.gpu"]
    time.sleep(LONG_S)
    assert deployment.ledger.depth().total_waiting == 1
    ran(deployment, "resume")
    deployment.wait_drained(SOON_S)
    assert deployment.analysis(waits).state.value == "succeeded"
    client.close()
