"""``tussis up`` as a person runs it: addresses that work, a line an event, and nothing that outlives it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

import boto3
import httpx
import psutil
import pytest

from tests.support.models import write_tiny
from tests.support.processes import Spawn
from tests.support.servers import server_folder
from tests.support.sounds import wav
from tests.support.waiting import PATIENCE, wait_until
from tussis.worker.embedded.ports import is_free
from tussis.worker.up.events import parse_line

#: Seconds, on a busy machine.
READY_S = 180.0
SOON_S = 60.0


def exports(file: Path) -> dict[str, str]:
    """The variables that a shell has after sourcing the file."""
    bare = {"PATH": os.defpath}
    command: list[str | Path] = ["/bin/sh", "-c", '. "$0"; exec env', file]
    shell = subprocess.run(command, env=bare, capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in shell.stdout.splitlines() if line.startswith(("TUSSIS_", "AWS_")))


def beside(folder: Path) -> list[psutil.Process]:
    """Processes that work in the folder, or were started with it as an argument."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder) or any(str(folder) in word for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def worker_of(folder: Path) -> psutil.Process:
    """The worker's parent process."""
    workers = []
    for process in beside(folder):
        with contextlib.suppress(psutil.NoSuchProcess):
            if {"worker", "cpu"} <= set(process.cmdline()):
                workers.append(process)
    return min(workers, key=lambda process: process.create_time())


def listening(folder: Path) -> set[str]:
    """The addresses on which processes beside the folder listen, over TCP and UDP."""
    found = set()
    for process in beside(folder):
        with contextlib.suppress(psutil.NoSuchProcess):
            for socket in process.net_connections("inet"):
                if socket.status in (psutil.CONN_LISTEN, psutil.CONN_NONE) and socket.laddr:
                    found.add(socket.laddr.ip)
    return found


def test_up_serves_says_what_happens_refuses_a_second_one_and_leaves_nothing(spawn: Spawn) -> None:
    with server_folder() as folder:
        data = folder / "up"
        words: list[str | Path] = ["up", "--data", data, "--model", write_tiny(folder), "--concurrency", "1"]
        first = spawn(*words)
        first.wait_for_line("until Ctrl-C", READY_S)
        environment = exports(data / "environment")
        printed = {line.split("=")[0].removeprefix("export ") for line in first.stdout if line.startswith("export ")}
        assert printed == environment.keys()
        assert "AWS_ENDPOINT_URL_S3" in printed
        assert Path(environment["TUSSIS_MODEL"]).is_file()

        second = spawn(*words)
        assert second.wait(SOON_S) == 1
        assert second.stderr == [
            f"tussis: {data}/servers is in use by process {first.pid}: stop it, or choose another folder"
        ]

        store = boto3.client(
            "s3",
            endpoint_url=environment["AWS_ENDPOINT_URL_S3"],
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            region_name=environment["AWS_DEFAULT_REGION"],
        )
        store.put_object(Bucket="tussis", Key="a.wav", Body=wav(1.0))
        store.put_object(Bucket="tussis", Key="b.wav", Body=b"no sound")
        sent = spawn("enqueue", "--prefix", "s3://tussis/", environment=environment)
        assert sent.wait(SOON_S) == 0, sent.text
        assert "succeeded  s3://tussis/a.wav" in first.wait_for_line("a.wav", SOON_S)
        assert "failed (not_audio)  s3://tussis/b.wav" in first.wait_for_line("b.wav", SOON_S)
        healthy = spawn("health", "live", environment=environment)
        assert healthy.wait(SOON_S) == 0, healthy.text

        # A worker that was ready comes back.
        worker_of(data).kill()
        first.wait_for_line("restarting it", SOON_S)
        wait_until(
            lambda: sum("worker ready" in line for line in first.stdout) == 2, READY_S, "the second worker's readiness"
        )

        first.signal(signal.SIGINT, group=True)
        assert first.wait(SOON_S) == 0, first.text
        first.wait_for_line("stopped", 1)
        assert beside(data) == []

        # Killed outright, it leaves nothing either; the data is there again.
        third = spawn(*words)
        third.wait_for_line("until Ctrl-C", READY_S)
        found = spawn("results", "--json", environment=exports(data / "environment"))
        assert found.wait(SOON_S) == 0, found.text
        assert len(found.stdout) == 2
        processes = beside(data)
        third.signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(processes, timeout=SOON_S * PATIENCE)
        assert alive == []
        ports = [
            int(port) for file in (data / "servers").glob("*.ports") for port in re.findall(r"\d+", file.read_text())
        ]
        wait_until(lambda: all(map(is_free, ports)), SOON_S, "the ports to be free")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            '{"event": "job_done", "level": "info", "outcome": "deferred", "error_class": "download_cut",'
            ' "uri": "s3://b/k", "ms": 40}',
            "deferred (download_cut)  s3://b/k  0.04 s",
        ),
        ('{"event": "holding", "level": "warning", "reason": "no database"}', "holding: no database"),
        ("tussis: no broker answers", "tussis: no broker answers"),
        ('{"event": "child_ready", "level": "info"}', None),
        ('{"event": "half', None),
        ("[1, 2]", None),
    ],
)
def test_a_log_line_becomes_a_line_for_people(line: str, text: str | None) -> None:
    told = parse_line(line)
    assert (told.text if told else None) == text


def test_up_serves_http_with_a_token_of_its_own(spawn: Spawn) -> None:
    with server_folder() as folder:
        data = folder / "up"
        up = spawn("up", "--data", data, "--model", write_tiny(folder), "--concurrency", "1", "--serve")
        up.wait_for_line("until Ctrl-C", READY_S)
        (url,) = re.findall(r"http://127\.0\.0\.1:\d+(?=/v1)", "\n".join(up.stdout))
        tokens = data / "serve-tokens"
        assert tokens.stat().st_mode & 0o777 == 0o600
        headers = {"Authorization": f"Bearer {tokens.read_text().strip().partition(':')[2]}"}

        # Servers, metrics, gateway: nothing is there for other machines.
        assert listening(folder) == {"127.0.0.1"}

        told = httpx.post(f"{url}/v1/recordings", content=wav(2.0), headers=headers, timeout=30)
        ended = httpx.get(f"{url}/v1/jobs/{told.json()['job_id']}?wait_s=60", headers=headers, timeout=90)

        assert (told.status_code, ended.json()["state"]) == (202, "succeeded")
        assert httpx.get(f"{url}/v1/batches").status_code == 401
        up.signal(signal.SIGINT, group=True)
        assert up.wait(SOON_S) == 0, up.text
        assert beside(data) == []
