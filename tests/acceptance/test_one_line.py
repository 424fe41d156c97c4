"""What is wrong is told in one line: what, where, what to do; soon, with a status that is not 0."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.support.deployment import Deployment
from tests.support.processes import Running
from tests.support.waiting import PATIENCE

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
    assert "is the id right?" in one_line(deployment.tussis("job", "6a6f6220-0000-0000-0000-000000000000"))


def test_status_as_json_is_whole(deployment: Deployment) -> None:
    run = deployment.tussis("status", "--json")
    assert run.wait(BUDGET_S) == 0
    [line] = run.stdout
    told = json.loads(line)
    assert told["waiting_total"] == told["in_flight"] == told["open"] == 0
    assert told["oldest_open_s"] is None
    assert told["workers"] == []
