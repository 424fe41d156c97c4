"""The options of ``tussis results`` that select analyses, and its output in a real pipe."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from tests.support.processes import TUSSIS
from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, model_facts
from tussis.producer.cli import root
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store

Run = Callable[..., Result]
JOB = "d906b625-5a4d-4c13-8152-a4cc08c545be"
SECOND_JOB = "c52fb138-5e7f-405e-9b45-4f496624cbef"


@pytest.fixture
def run(store_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``tussis results``."""
    monkeypatch.setenv("TUSSIS_DATABASE_URL", store_url)
    return lambda *words: CliRunner().invoke(root, ["results", *words])


@pytest.fixture
def filled(store: Store, model: ModelFacts) -> Store:
    """Analyses 1 to 4: a.wav is a cough for version 1 and none for version 2, b.wav a cough, c.wav is missing."""
    north, south = {"site": "north", "ward": 3}, {"site": "south", "ward": 3}
    newer = model_facts(version="2", sha256="b" * 64)
    for key, facts, probability, metadata in (
        ("a.wav", model, 0.9, north),
        ("b.wav", model, 0.8, south),
        ("a.wav", newer, 0.1, north),
    ):
        job = a_job(key=key, metadata=metadata, **({"job_id": JOB} if key == "b.wav" else {}))
        store.complete(claimed(store.claim(a_claim(job, facts))), a_result(2, probability))
    store.refuse(a_refusal(a_job(key="c.wav", job_id=SECOND_JOB), model_requested="cough@3"))
    return store


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ([], [4, 3, 2, 1]),
        (["--model", "cough"], [4, 3, 2, 1]),
        (["--model", "cough@1"], [2, 1]),
        (["--model", "cough@3"], [4]),
        (["--model", "other"], []),
        (["--metadata", "site=north"], [3, 1]),
        (["--metadata", "ward=3"], [3, 2, 1]),
        (["--metadata", "ward=3", "--metadata", "site=south"], [2]),
        (["--metadata", "site=north", "--metadata", "site=north"], [3, 1]),
        (["--metadata", "site="], []),
        (["--metadata", "site=a=b"], []),
        (["--job", JOB], [2]),
        (["--job", JOB, "--job", SECOND_JOB], [4, 2]),
        (["--job", JOB, "--decision", "no-cough"], []),
        (["--job", str(uuid.UUID(int=0))], []),
        (["--newest"], [4, 3, 2]),
        (["--newest", "--decision", "cough"], [2]),
        (["--newest", "--decision", "cough", "--model", "cough@1"], [2, 1]),
        (["--newest", "--metadata", "site=north", "--limit", "1"], [3]),
        (["--newest", "--prefix", "s3://recordings/a", "--state", "failed"], []),
    ],
    ids=str,
)
def test_the_options_select(filled: Store, run: Run, words: list[str], ids: list[int]) -> None:
    result = run("--json", *words)

    assert result.exit_code == 0, result.output
    assert [json.loads(line)["analysis_id"] for line in result.stdout.splitlines()] == ids


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model", "a b"], "'a b' is not a model: write NAME or NAME@VERSION"),
        (["--model", ""], "'' is not a model"),
        (["--model", "cough@"], "'cough@' is not a model"),
        (["--metadata", "site"], "'site' is not KEY=VALUE: write for example site=north"),
        (["--metadata", "=north"], "'=north' is not KEY=VALUE"),
        (["--metadata", "site=north", "--metadata", "site=south"], "'site' has two values"),
        (["--metadata", "site=\udcff"], "has characters that metadata cannot have"),
        (["--metadata", "si\x00te=a"], "has characters that metadata cannot have"),
        (["--job", "17"], "'17' is not a job id: use the UUID that `tussis enqueue` printed"),
        (["--job", JOB, "--job", JOB.upper()], f"'{JOB.upper()}' is not a job id"),
        (["--job", ""], "'' is not a job id"),
    ],
)
def test_a_wrong_value_is_one_line_and_status_2(run: Run, words: list[str], says: str) -> None:
    result = run(*words)

    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("tussis: Invalid value for '--")
    assert says in line
    assert line.endswith("(tussis results --help)")


@pytest.mark.parametrize("words", [["--metadata", "site=west"], ["--model", "other"], ["--job", str(uuid.UUID(int=0))]])
def test_nothing_that_matches_is_said(store: Store, run: Run, words: list[str]) -> None:
    assert run(*words).stdout == "No results match.\n"
    assert run("--newest").stdout == "No results yet: enqueue a recording with `tussis enqueue`.\n"


def test_a_real_pipe_has_a_row_a_line(store: Store, store_url: str, model: ModelFacts) -> None:
    """In a narrow terminal, too: the width of the terminal must not fold what ``grep`` reads."""
    keys = [f"ward {number}/" + "long name " * 40 + f"{number}.wav" for number in range(3)]
    for key in keys[:2]:
        store.complete(claimed(store.claim(a_claim(a_job(key=key), model))), a_result(3, 0.9))
    store.refuse(a_refusal(a_job(key=keys[2]), message="a long message " * 40))
    environment = os.environ | {"TUSSIS_DATABASE_URL": store_url, "COLUMNS": "40", "LINES": "10", "TERM": "xterm"}

    done = subprocess.run(
        [TUSSIS, "results", "--segments"], env=environment, capture_output=True, text=True, check=True, timeout=120
    )

    heading, *lines, summary = done.stdout.splitlines()
    assert heading.split()[:4] == ["answer", "prob.", "length", "recording"]
    assert [line.split()[0] for line in lines] == ["failed", *["COUGH", "segment", "segment", "segment"] * 2]
    assert [sum(f"s3://recordings/{key}" in line for line in lines) for key in keys] == [4, 4, 1]
    assert "a long message " * 39 in lines[0]
    assert summary.startswith("3 shown: 1 failed, 2 cough. Model: cough@1, none.")
    assert "\x1b" not in done.stdout
