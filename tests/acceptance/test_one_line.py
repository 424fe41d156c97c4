"""What is wrong is told in one line: what, where, what to do; soon, with a status that is not 0."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.support.deployment import Deployment
from tests.support.processes import Running
from tests.support.store import a_job, a_refusal
from tests.support.waiting import PATIENCE
from tussis.shared.settings import load_settings

#: Twice the budget: half of it is the start of an interpreter with torch.
BUDGET_S = 20.0


def one_line(run: Running) -> str:
    """The only line of a command that failed."""
    began = time.monotonic()
    status = run.wait(BUDGET_S)
    assert status == 1, run.text
    assert time.monotonic() - began < BUDGET_S * PATIENCE
    assert run.stdout == []
    [line] = [line for line in run.stderr if not line.startswith("{")]
    assert line.startswith("tussis: ")
    return line


def elsewhere(url: str, port: int) -> str:
    """The same URL with another port."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{port}"))


COMMANDS = (["worker", "cpu", "--concurrency", "1"], ["status"], ["job", "0" * 8])


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_an_unreachable_broker(deployment: Deployment, unused_port: int, words: list[str]) -> None:
    url = elsewhere(deployment.environment["TUSSIS_BROKER_URL"], unused_port)
    line = one_line(deployment.tussis(*words, broker_url=url))
    assert f":{urlsplit(url).port}" in line
    assert "broker" in line
    assert (urlsplit(url).password or "") not in line


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_an_unreachable_database(deployment: Deployment, unused_port: int, words: list[str]) -> None:
    url = elsewhere(deployment.environment["TUSSIS_DATABASE_URL"], unused_port)
    line = one_line(deployment.tussis(*words, database_url=url))
    assert f":{urlsplit(url).port}" in line
    assert "database" in line
    assert (urlsplit(url).password or "") not in line


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_a_mistyped_url(deployment: Deployment, words: list[str]) -> None:
    assert "TUSSIS_BROKER_URL" in one_line(deployment.tussis(*words, broker_url="localhost;6379"))
    assert "TUSSIS_DATABASE_URL" in one_line(deployment.tussis(*words, database_url="mysql://x"))


def test_a_setting_that_does_not_exist(deployment: Deployment) -> None:
    line = one_line(deployment.tussis("status", broker_ulr="redis://localhost"))
    assert "TUSSIS_BROKER_ULR" in line
    assert "did you mean TUSSIS_BROKER_URL?" in line


def test_a_worker_without_its_schema(deployment: Deployment, database_url: str) -> None:
    line = one_line(deployment.start_worker(database_url=database_url))
    assert "tussis migrate" in line


def test_a_worker_without_its_model(deployment: Deployment, tmp_path: Path) -> None:
    line = one_line(deployment.start_worker(model=tmp_path / "none.onnx"))
    assert str(tmp_path / "none.onnx") in line or str(tmp_path / "none.json") in line


def test_a_worker_whose_model_is_not_the_manifest_s(deployment: Deployment, tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "other.onnx"
    model.write_bytes(tiny_model.read_bytes() + b"\0")
    model.with_suffix(".json").write_bytes(tiny_model.with_suffix(".json").read_bytes())
    line = one_line(deployment.start_worker(model=model))
    assert "sha256" in line


def test_a_worker_whose_model_name_is_taken(deployment: Deployment, tiny_model: Path, tmp_path: Path) -> None:
    deployment.sql(
        "INSERT INTO models (name, version, sha256, profile, threshold, provenance)"
        f" VALUES ('tiny', '1', '{'f' * 64}', 'documented', 0.5, 'another file') RETURNING id"
    )
    line = one_line(deployment.start_worker())
    assert "tiny@1" in line


def test_a_job_that_nobody_knows(deployment: Deployment) -> None:
    assert "check the id" in one_line(deployment.tussis("job", "6a6f6220-0000-0000-0000-000000000000"))


#: Bytes that are no UTF-8, as Python holds them; a subprocess gets the byte itself.
BYTE = "\udce9"
LONG = "x" * 5_000

#: Words, what is set in the environment (S3: the address of an object store that is not there; None: not set), the
#: status, and a part of the line.
TABLE: tuple[tuple[list[str], dict[str, str | None], int, str], ...] = (
    (["nonsense"], {}, 2, "No such command 'nonsense'"),
    (["stauts"], {}, 2, "Did you mean 'status'?"),
    (["status", "--nonsense"], {}, 2, "(tussis status --help)"),
    (["job"], {}, 2, "Missing argument 'ID'"),
    (["job", f"caf{BYTE}"], {}, 1, "'caf\\udce9' is not a job id"),
    (["job", LONG], {}, 1, "no open job, result or failure has the job id"),
    (["results", "--since", "soon"], {}, 2, "'soon' is not a time"),
    (["results", "--prefix", f"s3://bucket/{BYTE}"], {}, 1, "the key is not valid Unicode"),
    (["results", "--prefix", f"s3://bucket/{LONG}"], {}, 1, "bytes of UTF-8: 1 to 1024 are allowed"),
    (["failures", "show", "9" * 30], {}, 2, f"{'9' * 30} is not in the range"),
    (["failures", "retry", "9" * 30], {}, 2, f"{'9' * 30} is not in the range"),
    (["failures", "list", "--class", BYTE], {}, 2, "no error class '\\udce9'"),
    (["enqueue"], {}, 2, "Pass URIs"),
    (["enqueue", "s3://bucket"], {}, 1, "no key in 's3://bucket'"),
    (["enqueue", f"s3://bucket/{BYTE}\x1b[31m", "--no-head"], {}, 1, "the key is not valid Unicode"),
    (["enqueue", "s3://bucket/a", "--metadata", "[" * 5_000], {}, 2, "not JSON"),
    (["enqueue", "s3://bucket/a"], {"TUSSIS_S3_ENDPOINT_URL": "S3"}, 1, "the object store does not answer"),
    (["cancel"], {}, 2, "Select jobs: give IDs, --batch or --prefix"),
    (["cancel", f"{BYTE}"], {}, 1, "'\\udce9' is not a job id"),
    (["cancel", "--prefix", "bucket"], {}, 1, "not an S3 URI: 'bucket'"),
    (["cancel", "--batch", "b", "--by", " "], {}, 1, "--by takes 1 to 200 printable characters"),
    (["pause", "tpu"], {}, 2, "'tpu' is not one of"),
    (["sweep", "bucket"], {}, 1, "not an S3 URI: 'bucket'"),
    (["sweep", "s3://bucket"], {"TUSSIS_S3_ENDPOINT_URL": "S3"}, 1, "the object store does not answer"),
    (["sweep", "s3://bucket", "--resume", "/dev"], {}, 2, "'/dev' is a directory"),
    (["analyze", "s3://bucket/a"], {"TUSSIS_S3_ENDPOINT_URL": "S3"}, 1, "the object store does not answer"),
    (["analyze", "a.wav", "--model", "/none.onnx"], {}, 1, "no model file /none.onnx"),
    (["analyze", "a.wav", "--model", LONG], {}, 1, "xxx"),
    (["analyze", "a.wav"], {"TUSSIS_MODEL": "s3://bucket/a.onnx", "TUSSIS_S3_ENDPOINT_URL": "S3"}, 1, "object store"),
    (["preprocess", "/none\x1b[31m.wav", "-o", "out.npz"], {}, 1, "/none\\x1b[31m.wav"),
    (["preprocess", LONG, "-o", "out.npz"], {}, 1, "File name too long"),
    (["models", "check", "/none.onnx"], {}, 1, "no model file /none.onnx"),
    (["models", "check", LONG], {}, 1, "xxx"),
    (["migrate", "--to", "nonsense"], {}, 2, "no revision 'nonsense'"),
    (["migrate", "--to", "base"], {}, 2, "Confirm with --yes"),
    (["retain", "--older-than", "soon"], {}, 2, "'soon' is not a time"),
    (["health", "everything"], {}, 2, "No such command 'everything'"),
    (["bench", "inference", "--rounds", "0"], {}, 2, "0 is not in the range"),
    (["up", "--data", "/proc/none"], {}, 1, "cannot write /proc/none"),
    (["up", "--model", "/none.onnx"], {}, 1, "no model file /none.onnx"),
    (["demo", "--audio", "/none"], {}, 1, "/none"),
    (["worker", "cpu", "--concurrency", "0"], {}, 2, "0 is not in the range"),
    (["worker", "cpu"], {"TUSSIS_RUN_DIR": "/proc/none"}, 1, "set TUSSIS_RUN_DIR to a writable folder"),
    (["worker", "cpu"], {"TUSSIS_MODEL": None}, 1, "TUSSIS_MODEL is not set"),
    (["status"], {"TUSSIS_BROKER_URL": None}, 1, "TUSSIS_BROKER_URL is not set"),
    (["results"], {"TUSSIS_DATABASE_URL": None}, 1, "TUSSIS_DATABASE_URL is not set"),
    (["results"], {"TUSSIS_CONCURRENCY": LONG}, 1, "TUSSIS_CONCURRENCY is wrong"),
)


@pytest.mark.parametrize(("words", "changes", "status", "part"), TABLE, ids=lambda value: str(value)[:60])
def test_a_wrong_call_is_one_line(
    deployment: Deployment,
    unused_port: int,
    tmp_path: Path,
    words: list[str],
    changes: dict[str, str | None],
    status: int,
    part: str,
) -> None:
    environment = dict(deployment.environment)
    for name, value in changes.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = f"http://127.0.0.1:{unused_port}" if value == "S3" else value

    run = deployment.spawn(*words, environment=environment, cwd=tmp_path, preloaded=deployment.preloaded)

    assert run.wait(BUDGET_S) == status, run.text
    assert [line for line in run.stdout if "stopping" not in line] == []
    [line] = [line for line in run.stderr if not line.startswith("{")]
    assert line.startswith("tussis: ")
    assert part in line
    assert line.isprintable()
    assert len(line) < 4_100


#: What somebody's account may lack.
SURROUNDINGS = {
    "no home": {"HOME": ""},
    "a home that is not there": {"HOME": "/nonexistent/home"},
    "a home that is read-only": {"HOME": "/proc"},
    "the plain locale": {"LC_ALL": "C", "LANG": "C"},
    "an encoding of few letters": {"PYTHONIOENCODING": "ascii"},
}


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
@pytest.mark.parametrize("words", [["status"], ["results"], ["failures", "list"]], ids=" ".join)
def test_commands_work_in_poor_surroundings(deployment: Deployment, words: list[str], surroundings: str) -> None:
    deployment.store.refuse(a_refusal(a_job(key="咳/é.wav")))
    environment = deployment.environment | SURROUNDINGS[surroundings]
    del environment["TUSSIS_MODEL_CACHE_DIR"]

    run = deployment.spawn(*words, environment=environment)

    assert run.wait(BUDGET_S) == 0, run.text
    assert run.stderr == []
    if words != ["status"]:
        assert "咳/é.wav" in run.text or r"\u54b3/\xe9.wav" in run.text


def test_a_user_without_a_home_or_an_entry_in_the_password_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("TUSSIS_MODEL_CACHE_DIR", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    assert str(load_settings().model_cache_dir) == "/nonexistent/.cache/tussis"


def test_status_as_json_is_whole(deployment: Deployment) -> None:
    run = deployment.tussis("status", "--json")
    assert run.wait(BUDGET_S) == 0
    [line] = run.stdout
    told = json.loads(line)
    assert told["waiting_total"] == told["in_flight"] == told["open"] == 0
    assert told["oldest_open_s"] is None
    assert told["workers"] == []
