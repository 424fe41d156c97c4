"""``tussis upload`` against a real broker and store."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner, Result

from tests.support.broker_state import open_jobs
from tests.support.outcomes import failed, succeeded
from tests.support.servers import Bucket
from tests.support.waiting import wait_until
from tussis.producer import Producer
from tussis.producer.cli import root
from tussis.shared.broker import connect
from tussis.shared.ledger import Ledger
from tussis.shared.queues import LEDGER_KEY

#: Seconds. Every wait ends long before on a quiet machine.
WAIT_S = 60
Run = Callable[..., Result]
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@pytest.fixture
def run(environment: dict[str, str], bucket: Bucket) -> Run:
    """``tussis upload`` in this process, with the test's broker, store and bucket."""
    place = ["--prefix", f"s3://{bucket.name}/in"]
    return lambda *args, stdin=b"": CliRunner().invoke(root, ["upload", *place, *map(str, args)], input=stdin)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Recordings in a folder, among them a hidden file."""
    (tmp_path / "ward").mkdir()
    (tmp_path / "ward" / "b.mp3").write_bytes(b"two")
    (tmp_path / "Smith.WAV").write_bytes(b"one")
    (tmp_path / ".hidden").write_bytes(b"three")
    return tmp_path


def lines(result: Result) -> list[list[str]]:
    return [line.split("\t") for line in result.stdout.splitlines()]


def read(bucket: Bucket, uri: str) -> bytes:
    data = bucket.client.get_object(Bucket=bucket.name, Key=uri.removeprefix(f"s3://{bucket.name}/"))["Body"].read()
    assert isinstance(data, bytes)
    return data


def test_a_file_is_stored_under_a_new_key_and_enqueued(
    run: Run, bucket: Bucket, folder: Path, broker: redis.Redis
) -> None:
    result = run(folder / "Smith.WAV", "--priority", "0", "--metadata", '{"site": "north"}')

    assert (result.exit_code, result.stderr) == (0, "1 enqueued\n")
    [(job_id, uri, file)] = lines(result)
    assert re.fullmatch(rf"s3://{bucket.name}/in/\d{{4}}/\d\d/\d\d/{UUID}\.wav", uri)
    assert file == str(folder / "Smith.WAV")
    assert read(bucket, uri) == b"one"
    message = json.loads(broker.hget(LEDGER_KEY, job_id) or "")
    assert (message["priority"], message["metadata"]) == (0, {"site": "north"})


def test_the_job_is_that_of_enqueue_for_the_object(run: Run, folder: Path, producer: Producer) -> None:
    [(job_id, uri, _)] = lines(run(folder / "Smith.WAV", "--profile", "legacy"))
    assert producer.enqueue(uri, profile="legacy") == job_id


def test_the_job_is_that_of_enqueue_in_a_bucket_with_versions(
    run: Run, folder: Path, producer: Producer, versioned: Bucket, broker: redis.Redis
) -> None:
    [(job_id, uri, _)] = lines(run(folder / "Smith.WAV"))
    assert producer.enqueue(uri) == job_id
    for version in versioned.client.list_object_versions(Bucket=versioned.name)["Versions"]:
        versioned.client.delete_object(Bucket=versioned.name, Key=version["Key"], VersionId=version["VersionId"])


def test_a_folder_and_standard_input(run: Run, bucket: Bucket, folder: Path) -> None:
    result = run(folder, "-", stdin=b"\x00\xffpiped")

    assert result.exit_code == 0
    assert [file for *_, file in lines(result)] == [str(folder / "Smith.WAV"), str(folder / "ward" / "b.mp3"), "-"]
    assert [read(bucket, uri) for _, uri, _ in lines(result)] == [b"one", b"two", b"\x00\xffpiped"]
    assert [uri.rpartition("/")[2][36:] for _, uri, _ in lines(result)] == [".wav", ".mp3", ""]


def test_kept_names_are_stored_once(run: Run, bucket: Bucket, folder: Path, broker: redis.Redis) -> None:
    first = run(folder, "--keep-names")
    again = run(folder, "--keep-names")

    assert [uri for _, uri, _ in lines(first)] == [bucket.uri("in/Smith.WAV"), bucket.uri("in/ward/b.mp3")]
    assert again.stdout == first.stdout
    assert again.stderr == "0 enqueued, 2 open already\n"
    assert len(open_jobs(broker)) == 2


def test_a_key_with_other_content_is_not_replaced(run: Run, bucket: Bucket, folder: Path) -> None:
    bucket.put("in/Smith.WAV", b"other")

    result = run(folder, "--keep-names")

    assert result.exit_code == 1
    assert read(bucket, bucket.uri("in/Smith.WAV")) == b"other"
    assert [uri for _, uri, _ in lines(result)] == [bucket.uri("in/ward/b.mp3")]
    assert f"tussis: {folder / 'Smith.WAV'}: {bucket.uri('in/Smith.WAV')} has other content" in result.stderr


def test_what_cannot_be_uploaded_is_named_and_the_rest_is_enqueued(
    run: Run, bucket: Bucket, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUSSIS_MAX_BYTES", "3")
    (folder / "empty.wav").touch()
    (folder / "large.wav").write_bytes(b"four")

    result = run(folder / "missing.wav", folder, "--json")

    assert result.exit_code == 1
    told = [json.loads(line) for line in result.stdout.splitlines()]
    refused = {Path(one["file"]).name: one["error"]["class"] for one in told if "error" in one}
    assert refused == {"missing.wav": "file_unreadable", "empty.wav": "empty", "large.wav": "too_large"}
    enqueued = [one for one in told if "error" not in one]
    assert [(Path(one["file"]).name, one["sent"], read(bucket, one["uri"])) for one in enqueued] == [
        ("Smith.WAV", True, b"one"),
        ("b.mp3", True, b"two"),
    ]
    assert result.stderr == "2 enqueued, 3 refused\n"
    assert bucket.client.list_objects_v2(Bucket=bucket.name)["KeyCount"] == 2


@pytest.mark.parametrize("as_json", [False, True])
def test_wait_prints_the_outcomes(run: Run, folder: Path, broker_url: str, broker: redis.Redis, as_json: bool) -> None:
    ledger = Ledger(connect(broker_url))
    results: list[Result] = []
    command = threading.Thread(
        target=lambda: results.append(run(folder, "--wait", "--timeout", WAIT_S, *["--json"] * as_json))
    )
    command.start()
    wait_until(lambda: ledger.depth().open == 2, WAIT_S, "both jobs")
    for job_id in open_jobs(broker):
        job = ledger.find(job_id)
        assert job is not None
        ledger.close(job, succeeded(job) if job.key.endswith(".wav") else failed(job))
    command.join(WAIT_S)

    (result,) = results
    assert result.exit_code == 1
    if as_json:
        told = {Path(one["file"]).name: one["state"] for one in map(json.loads, result.stdout.splitlines())}
    else:
        told = {Path(file).name: ending for _, _, ending, _, file in lines(result)}
        told = {name: "succeeded" if "cough" in ending else "failed" for name, ending in told.items()}
    assert told == {"Smith.WAV": "succeeded", "b.mp3": "failed"}


def test_nothing_is_uploaded_for_a_job_that_would_be_refused(run: Run, bucket: Bucket, folder: Path) -> None:
    result = run(folder, "--model", "no model")

    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1
    assert bucket.client.list_objects_v2(Bucket=bucket.name)["KeyCount"] == 0


def test_nothing_is_uploaded_without_a_broker(run: Run, bucket: Bucket, folder: Path) -> None:
    result = run(folder, "--broker-url", "redis://127.0.0.1:1/0")

    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1
    assert bucket.client.list_objects_v2(Bucket=bucket.name)["KeyCount"] == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a.wav"], "no place for the files is set: pass --prefix s3://bucket/prefix/"),
        (["a.wav", "--prefix", "clinic"], "not an S3 URI: 'clinic': write s3://bucket/key"),
        (["-", "--keep-names", "--prefix", "s3://clinic/"], "- has no name to keep."),
        (["a.wav", "--timeout", "1"], "--timeout needs --wait."),
        (["a.wav", "--prefix", "s3://no-such-bucket/"], "the bucket no-such-bucket does not exist"),
    ],
)
def test_a_wrong_call_is_one_line(
    environment: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(folder)
    (folder / "a.wav").write_bytes(b"one")

    result = CliRunner().invoke(root, ["upload", *arguments], input=b"one")

    assert result.exit_code in (1, 2)
    assert told in result.stderr
    assert not result.stdout
