"""``tussis enqueue`` against a real broker and store."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner, Result

from tests.support.broker_state import entries, open_jobs
from tests.support.servers import Bucket
from tests.support.waiting import PATIENCE, wait_until
from tussis.producer.cli import root
from tussis.shared.queues import LEDGER_KEY

Run = Callable[..., Result]
COMMAND = [sys.executable, "-c", "from tussis.producer.cli import main; main()", "enqueue"]


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """``tussis enqueue`` in this process, with the test's broker and store."""
    return lambda *args, stdin="": CliRunner().invoke(root, ["enqueue", *args], input=stdin)


def lines(result: Result) -> list[list[str]]:
    return [line.split("\t") for line in result.stdout.splitlines()]


def test_it_prints_id_and_uri_and_a_summary(run: Run, bucket: Bucket, broker: redis.Redis) -> None:
    uris = [bucket.put("a.wav", b"one"), bucket.put("b c.wav", b"two")]

    result = run(*uris)

    assert result.exit_code == 0
    assert [uri for _, uri in lines(result)] == uris
    assert sorted(job_id for job_id, _ in lines(result)) == sorted(open_jobs(broker))
    assert result.stderr == "2 enqueued\n"


def test_what_is_open_already_is_counted_apart(run: Run, bucket: Bucket, broker: redis.Redis) -> None:
    uri = bucket.put("a.wav", b"one")
    first = run(uri)

    second = run(uri)

    assert second.exit_code == 0
    assert second.stdout == first.stdout
    assert second.stderr == "0 enqueued, 1 open already\n"
    assert len(entries(broker)) == 1


def test_options_reach_the_job(run: Run, bucket: Bucket, broker: redis.Redis) -> None:
    options = ["--version-id", "v1", "--etag", '"e1"', "--model", "cough@2", "--profile", "legacy", "--priority", "0"]
    more = ["--device", "gpu", "--metadata", '{"site": "north"}', "--again"]

    result = run(bucket.uri("a.wav"), *options, *more)

    message = json.loads(broker.hget(LEDGER_KEY, lines(result)[0][0]) or "")
    assert (message["version_id"], message["etag"], message["model"]) == ("v1", "e1", "cough@2")
    assert (message["profile"], message["priority"], message["device"]) == ("legacy", 0, "gpu")
    assert (message["metadata"], message["again"]) == ({"site": "north"}, True)
    assert [entry.key for entry in entries(broker)] == ["tussis.gpu"]


def test_one_that_is_refused_takes_no_other_along(run: Run, bucket: Bucket, broker: redis.Redis) -> None:
    there = bucket.put("a.wav", b"one")

    result = run(bucket.uri("missing.wav"), there, "nonsense")

    assert result.exit_code == 1
    assert [uri for _, uri in lines(result)] == [there]
    missing, nonsense, summary = result.stderr.splitlines()
    assert missing.startswith(f"tussis: {bucket.uri('missing.wav')} does not exist")
    assert nonsense == "tussis: not an S3 URI: 'nonsense': write s3://bucket/key"
    assert summary == "1 enqueued, 2 refused"


def test_a_single_refusal_is_one_line(run: Run, bucket: Bucket) -> None:
    result = run(bucket.uri("missing.wav"))

    assert result.exit_code == 1
    assert not result.stdout
    assert len(result.stderr.splitlines()) == 1


def test_json_says_the_same_a_line_each(run: Run, bucket: Bucket) -> None:
    there = bucket.put("a.wav", b"one")

    result = run(there, bucket.uri("missing.wav"), "--json")

    enqueued, refused = map(json.loads, result.stdout.splitlines())
    assert enqueued == {"uri": there, "job_id": enqueued["job_id"], "sent": True}
    assert refused["uri"] == bucket.uri("missing.wav")
    assert refused["error"]["class"] == "object_missing"
    assert "does not exist" in refused["error"]["message"]
    assert result.stderr == "1 enqueued, 1 refused\n"


def test_a_list_on_standard_input(run: Run, bucket: Bucket, broker: redis.Redis) -> None:
    there = bucket.put("a b#c.wav", b"one")
    record = {"uri": bucket.uri("pinned.wav"), "etag": "e1", "priority": 1, "metadata": {"n": 1}}

    result = run("-", "--priority", "8", stdin=f"{there}\n\n{json.dumps(record)}\r\n{{broken\n{there}")

    assert result.exit_code == 1
    assert [uri for _, uri in lines(result)] == [there, bucket.uri("pinned.wav"), there]
    assert {entry.key for entry in entries(broker)} == {"tussis.any:8", "tussis.any:1"}
    assert "not JSON" in result.stderr
    assert result.stderr.endswith("2 enqueued, 1 open already, 1 refused\n")


def test_a_wrong_recorded_at_on_a_line_refuses_this_line_in_one_line(run: Run, broker: redis.Redis) -> None:
    times = ["2026-11-22T14:30", "2026-11-22T14:30+01:00"]
    records = [{"uri": f"s3://clinic/{n}.wav", "metadata": {"recorded_at": time}} for n, time in enumerate(times)]

    result = run("-", "--no-head", stdin="\n".join(map(json.dumps, records)))

    assert result.exit_code == 1
    assert [uri for _, uri in lines(result)] == ["s3://clinic/1.wav"]
    refusal, summary = result.stderr.splitlines()
    assert refusal.startswith("tussis: s3://clinic/0.wav: metadata recorded_at has no offset from UTC")
    assert summary == "1 enqueued, 1 refused"
    assert len(open_jobs(broker)) == 1


def test_an_empty_list_is_no_fault(run: Run) -> None:
    result = run("-", stdin="")

    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "0 enqueued\n")


def test_a_line_that_is_not_utf_8_is_refused_alone(run: Run) -> None:
    result = CliRunner().invoke(root, ["enqueue", "-", "--no-head"], input=b"s3://clinic/\xff\ns3://clinic/b\n")

    assert result.exit_code == 1
    assert [uri for _, uri in lines(result)] == ["s3://clinic/b"]
    assert "not UTF-8" in result.stderr


def test_lines_are_enqueued_as_they_arrive(environment: dict[str, str], broker: redis.Redis) -> None:
    with subprocess.Popen(
        [*COMMAND, "-", "--no-head"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(b"s3://clinic/first.wav\ns3://clinic/half")
        process.stdin.flush()
        wait_until(lambda: broker.zcard("tussis.open") == 1, 20, "the first line's job")
        process.stdin.write(b"-a-line.wav")
        process.stdin.close()
        assert process.wait(20 * PATIENCE) == 0
        assert process.stderr.read() == b"2 enqueued\n"
        uris = [line.split(b"\t")[1] for line in process.stdout.read().splitlines()]
    assert uris == [b"s3://clinic/first.wav", b"s3://clinic/half-a-line.wav"]


def test_a_prefix_is_streamed(run: Run, bucket: Bucket, broker: redis.Redis) -> None:
    uris = [bucket.put(f"in/{n}.wav", bytes([n])) for n in range(5)]
    bucket.put("out/9.wav", b"x")

    dry = run("--prefix", bucket.uri("in/"), "--dry-run")
    assert dry.exit_code == 0
    assert dry.stdout.splitlines() == uris
    assert dry.stderr == "5 would be enqueued\n"
    assert broker.dbsize() == 0

    result = run("--prefix", bucket.uri("in/"), "--priority", "9")
    assert [uri for _, uri in lines(result)] == uris
    assert result.stderr == "5 enqueued\n"
    assert {entry.key for entry in entries(broker)} == {"tussis.any:9"}


def test_a_prefix_without_objects_is_a_fault(run: Run, bucket: Bucket) -> None:
    result = run("--prefix", bucket.uri("nothing/"))

    assert result.exit_code == 1
    assert result.stderr == f"tussis: no object is under {bucket.uri('nothing/')}: check the prefix\n"


def test_quiet_prints_the_summary_alone(run: Run, bucket: Bucket) -> None:
    result = run("-q", bucket.put("a.wav", b"one"))

    assert (result.stdout, result.stderr) == ("", "1 enqueued\n")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--prefix", "s3://clinic/in/", "s3://clinic/a.wav"],
        ["s3://clinic/a.wav", "s3://clinic/b.wav", "--etag", "e"],
        ["-", "--version-id", "v"],
        ["--prefix", "s3://clinic/in/", "--etag", "e"],
        ["s3://clinic/a.wav", "--priority", "10"],
        ["s3://clinic/a.wav", "--device", "tpu"],
        ["s3://clinic/a.wav", "--metadata", "[]"],
        ["s3://clinic/a.wav", "--metadata", "{"],
        ["s3://clinic/a.wav", "--metadata", '{"recorded_at": "2026-11-22T14:30"}'],
        ["s3://clinic/a.wav", "--metadata", '{"subject": ""}'],
        ["s3://clinic/a.wav", "--colour"],
    ],
)
def test_wrong_usage_is_status_2_and_sends_nothing(run: Run, broker: redis.Redis, arguments: list[str]) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("tussis: ")
    assert line.endswith("(tussis enqueue --help)")
    assert broker.dbsize() == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            ["--broker-url", "redis://127.0.0.1:{port}/0", "--no-head"],
            "the broker at redis://127.0.0.1:{port}/0 does not answer",
        ),
        (["--broker-url", "http://nonsense"], "TUSSIS_BROKER_URL is not a Redis URL"),
        (["--s3-endpoint-url", "http://127.0.0.1:{port}"], "the object store does not answer"),
        (["--s3-endpoint-url", "nonsense"], "TUSSIS_S3_ENDPOINT_URL is wrong"),
    ],
)
def test_a_server_that_is_not_there_is_one_line_in_time(
    run: Run, bucket: Bucket, broker: redis.Redis, unused_port: int, flags: list[str], says: str
) -> None:
    uri = bucket.put("a.wav", b"one")
    began = time.monotonic()

    result = run(uri, *(flag.format(port=unused_port) for flag in flags))

    assert time.monotonic() - began < 10 * PATIENCE
    assert result.exit_code == 1
    assert says.format(port=unused_port) in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert broker.dbsize() == 0


def test_without_a_broker_nothing_else_is_tried(run: Run, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUSSIS_BROKER_URL")

    result = run(bucket.uri("missing.wav"))

    assert result.exit_code == 1
    assert result.stderr.startswith("tussis: TUSSIS_BROKER_URL is not set")


def test_what_was_enqueued_before_a_fault_is_summed_up(
    environment: dict[str, str], broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = broker.config_get("maxmemory")["maxmemory"] or "0"
    broker.config_set("maxmemory", int(broker.info("memory")["used_memory"]) + 1_000_000)
    try:
        records = [
            json.dumps({"uri": "s3://clinic/a.wav", "etag": f"e{n}", "metadata": {"t": "x" * 3000}}) for n in range(300)
        ]
        result = CliRunner().invoke(root, ["enqueue", "-"], input="\n".join(records))
    finally:
        broker.config_set("maxmemory", full)

    *_, summary, fault = result.stderr.splitlines()
    assert result.exit_code == 1
    assert lines(result)
    assert summary == f"{len(lines(result))} enqueued"
    assert "is full (maxmemory)" in fault
    assert sorted(job_id for job_id, _ in lines(result)) == sorted(open_jobs(broker))


def test_progress_is_shown_on_a_terminal_and_wiped_out(environment: dict[str, str], tmp_path: Any) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text("".join(f"s3://clinic/{n}.wav\n" for n in range(2000)))
    terminal, its_end = pty.openpty()
    with (
        listing.open("rb") as stdin,
        subprocess.Popen(
            [*COMMAND, "-", "--no-head"], stdin=stdin, stdout=subprocess.DEVNULL, stderr=its_end
        ) as process,
    ):
        os.close(its_end)
        shown = said_on(terminal).decode()
        assert process.wait(60) == 0
    os.close(terminal)

    assert " enqueued ...\r\x1b[K" in shown
    assert shown.endswith("\r\x1b[K2,000 enqueued\r\n")


def said_on(terminal: int) -> bytes:
    """All that is written until the last one closes it. One read gives what has arrived, and a full one blocks."""
    said = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while chunk := os.read(terminal, 65_536):
            said += chunk
    return said


def test_nobody_reading_the_output_is_no_trace(environment: dict[str, str]) -> None:
    with subprocess.Popen(
        [*COMMAND, "-", "--no-head"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.close()
        _, said = process.communicate(b"s3://clinic/a.wav\n" * 100, timeout=30 * PATIENCE)

    assert process.returncode == 141
    assert re.fullmatch(rb"\d+ enqueued\n", said), said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("words", [["s3://clinic/a.wav", "--dry-run", "--no-head"], ["--help"]])
def test_output_that_nothing_takes_is_one_line(environment: dict[str, str], words: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run([*COMMAND, *words], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)

    said = ended.stderr.decode().splitlines()
    assert ended.returncode == 1
    assert said[-1].startswith("tussis: cannot write the output (No space left on device): ")
    assert len(said) == 1 + ("--dry-run" in words)
