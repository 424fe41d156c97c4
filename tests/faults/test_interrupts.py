"""How commands end: an orderly stop of a service is 0, an interrupted command 130 with one line, `| head` is quiet."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.deployment import Deployment
from tests.support.processes import TUSSIS, Spawn
from tests.support.store import a_job, a_refusal
from tests.support.waiting import PATIENCE, wait_until

SOON_S = 60.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("group", [True, False], ids=["terminal", "process"])
def test_a_worker_that_is_asked_to_stop_ends_with_0(
    deployment: Deployment, number: signal.Signals, group: bool
) -> None:
    if group and number is signal.SIGTERM:
        pytest.skip("a terminal sends SIGINT")
    worker = deployment.worker(concurrency=1)

    worker.signal(number, group=group)

    assert worker.wait(SOON_S) == 0, worker.text
    assert worker.wait_for_event("worker_stopped", 1)["status"] == 0
    assert not any(line.startswith("Traceback") for line in worker.stderr), worker.text


def test_enqueue_is_interrupted_while_it_waits_for_lines(deployment: Deployment) -> None:
    with subprocess.Popen(
        [TUSSIS, "enqueue", "-", "--no-head"],
        env={"PATH": os.defpath, **deployment.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write("s3://clinic/a.wav\n")
        process.stdin.flush()
        assert process.stdout.readline().endswith("\ts3://clinic/a.wav\n")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=SOON_S * PATIENCE)

    assert process.returncode == 130
    assert said == "1 enqueued\ntussis: interrupted\n"


def test_sweep_is_interrupted_while_it_waits_for_room(deployment: Deployment) -> None:
    for number in range(3):
        deployment.enqueue(f"open/{number}.wav", b"x")
    deployment.bucket.put("new/1.wav", b"x")
    ours, theirs = pty.openpty()  # on a terminal it says at once that it waits
    with subprocess.Popen(
        [TUSSIS, "sweep", f"s3://{deployment.bucket.name}/new/", "--max-depth", "2"],
        env={"PATH": os.defpath, **deployment.environment},
        stdout=subprocess.PIPE,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        said = b""
        while b"waiting, the queues hold 3" not in said:
            said += os.read(ours, 65_536)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # the end of a terminal
            while chunk := os.read(ours, 65_536):
                said += chunk
    os.close(ours)

    assert process.returncode == 130, said
    assert said.endswith(b"\r\x1b[Ktussis: interrupted\r\n"), said
    assert deployment.ledger.depth().open == 3


def test_bench_is_interrupted(spawn: Spawn, tiny_model: Path, tmp_path: Path) -> None:
    environment = {"TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    run = spawn("bench", "memory", "--quick", "--original", tiny_model, environment=environment)
    wait_until(lambda: bool(run.children()), SOON_S, "its servers")

    run.signal(signal.SIGINT, group=True)

    assert run.wait(SOON_S) == 130, run.text
    assert run.stderr[-1] == "tussis: stopped by Ctrl-C; no report"
    assert "Traceback" not in run.text


@pytest.mark.parametrize(
    "words",
    [["results"], ["results", "--json"], ["failures", "list"], ["failures", "list", "--by-class"], ["status"], ["-h"]],
    ids=" ".join,
)
def test_nobody_reads_the_output(deployment: Deployment, words: list[str]) -> None:
    for number in range(3):
        deployment.store.refuse(a_refusal(a_job(key=f"{number}.wav")))
    with subprocess.Popen(
        [TUSSIS, *words],
        env={"PATH": os.defpath, **deployment.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout
        process.stdout.close()
        _, said = process.communicate(timeout=SOON_S * PATIENCE)

    assert (process.returncode, said) == (141, b"")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("words", "status"), [("status", 0), ("results", 0), ("job none", 1), ("enqueue", 2)])
def test_closed_streams_change_no_status(deployment: Deployment, closed: str, words: str, status: int) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" {words} {closed}', TUSSIS],
        env={"PATH": os.defpath, **deployment.environment},
        capture_output=True,
        timeout=SOON_S * PATIENCE,
        check=False,
    )
    assert done.returncode == status, done
    assert b"Traceback" not in done.stderr
    if "2>&-" in closed:
        assert done.stderr == b""
