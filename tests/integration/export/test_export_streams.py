"""Exports of many rows: memory, a reader that leaves, an interrupt."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT, TUSSIS
from tests.support.store import a_claim, a_job, a_result, claimed, execute, model_facts, rows
from tests.support.waiting import PATIENCE, wait_until
from tussis.shared.store.repository import Store

FORMATS = ("csv", "jsonl", "parquet")


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_reader_that_closes_the_pipe_ends_the_export_quietly(many: str, tmp_path: Path, file_format: str) -> None:
    command = f"{TUSSIS} export --format {file_format} --rows segments --out - | head -c 100 | wc -c"

    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=os.environ | {"TUSSIS_DATABASE_URL": many},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert (done.stdout.strip(), done.stderr, done.returncode) == ("100", "", 141)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_the_old_file_and_nothing_else(many: str, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out.csv"
    out.write_text("before")
    with subprocess.Popen(
        [TUSSIS, "export", "--format", "csv", "--rows", "segments", "--out", str(out)],
        env=os.environ | {"TUSSIS_DATABASE_URL": many},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until(lambda: any(part.stat().st_size for part in tmp_path.glob(".*.part")), 20, "a part file")
        process.send_signal(number)
        _, told = process.communicate(timeout=20 * PATIENCE)

    assert (process.returncode, told) == (130, "tussis: interrupted\n")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("out.csv", "before")]


@pytest.fixture(scope="module")
def many(shared_store_url: str) -> str:
    """A database with 200,000 segments: 50 analyses with 4,000 each."""
    with Store.connect(shared_store_url) as store:
        model = model_facts()
        store.register_model(model)
        first = claimed(store.claim(a_claim(a_job(key="a.wav"), model)))
        store.complete(first, a_result(1, 0.9))
    multiply(shared_store_url, 49, 4_000)
    return shared_store_url


def multiply(url: str, copies: int, segments: int) -> None:
    """Copy the only analysis, and give each analysis this number of segments. Constraints and indexes stay."""
    execute(
        url,
        "INSERT INTO recordings (bucket, key, etag, rate_hz, metadata) "
        "SELECT 'recordings', 'many/' || n || repeat('x', 100), 'e1', 16000, '{}' "
        f"FROM generate_series(1, {copies}) AS n",
    )
    columns = rows(
        url,
        "SELECT string_agg(column_name, ', ') FROM information_schema.columns "
        "WHERE table_name = 'analyses' AND column_name NOT IN ('id', 'recording_id', 'attempt_token')",
    )[0][0]
    execute(
        url,
        f"INSERT INTO analyses (recording_id, attempt_token, {columns}) "
        f"SELECT copy, gen_random_uuid(), {columns} "
        "FROM analyses, (SELECT id AS copy FROM recordings WHERE key LIKE 'many/%') AS copies",
    )
    execute(
        url,
        "INSERT INTO bags SELECT id, 0, 0, 1, 0.9, 1.4, 1 FROM analyses WHERE id NOT IN (SELECT analysis_id FROM bags)",
    )
    execute(url, "DELETE FROM segments")
    execute(
        url,
        "INSERT INTO segments (analysis_id, bag_index, segment_index, analysis_created_at, start_s, end_s, "
        "probability, logit) "
        f"SELECT id, 0, n, created_at, n * 0.5, n * 0.5 + 2, 0.25, -1 FROM analyses, generate_series(1, {segments}) n",
    )


@pytest.mark.parametrize("file_format", FORMATS)
def test_memory_does_not_grow_with_the_rows(many: str, tmp_path: Path, file_format: str) -> None:
    """Ten times the rows need at most 24 MiB more. A list of the 200,000 rows would need over 60 MiB."""
    few, lots = (peak_bytes(many, file_format, tmp_path / "out", limit) for limit in (5, 50))

    assert (few[0], lots[0]) == (20_000, 200_000)
    assert lots[1] - few[1] < 24 * 2**20


def peak_bytes(url: str, file_format: str, out: Path, limit: int) -> tuple[int, int]:
    """The number of rows of an export, and the highest memory of the process that wrote it, in bytes."""
    code = (
        "import sys; from tussis.producer.cli import root; root(sys.argv[1:], standalone_mode=False); "
        "from tests.support.memory import peak_bytes; print(peak_bytes())"
    )
    words = ["export", "--format", file_format, "--rows", "segments", "--limit", str(limit), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=os.environ | {"TUSSIS_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        cwd=ROOT,
    )
    exported, peak = done.stdout.splitlines()
    return int(exported.split()[-2].replace(",", "")), int(peak)
