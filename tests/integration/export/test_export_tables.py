"""``tussis export`` to tables, on a filled database."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from tests.support.processes import TUSSIS
from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed
from tussis.producer.cli import root
from tussis.shared.store import exports
from tussis.shared.store.export_columns import COLUMNS, ColumnKind, ExportRows
from tussis.shared.store.records import ModelFacts, ResultFilter, SegmentScores
from tussis.shared.store.repository import Store

Run = Callable[..., Result]
Records = list[dict[str, Any]]
FORMATS = ("csv", "jsonl", "parquet")
EVERYTHING = list(ExportRows)


@pytest.fixture
def run(store_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``tussis export``."""
    monkeypatch.setenv("TUSSIS_DATABASE_URL", store_url)
    return lambda *words: CliRunner().invoke(root, ["export", *map(str, words)])


@pytest.fixture
def filled(store: Store, model: ModelFacts) -> Store:
    """A cough with metadata and an infinite logit, no cough, a failure; oldest to newest."""
    metadata = {"recorded_at": "2026-11-22T14:30:00.5+01:00", "site": "north", "subject": "=A1", "ward": [1, "ä"]}
    scores = SegmentScores((0.0, 0.5), (2.0, 2.5), (0.0, 1.0), (-math.inf, math.inf))
    cough = claimed(store.claim(a_claim(a_job(key='-1+1/ä,\n".wav', metadata=metadata), model)))
    store.complete(cough, a_result(2, 0.9, segments=scores, warnings=("clipped", "dc_offset"), peak_dbfs=-0.125))
    silent = a_result(3, 0.25, events=(), peak_dbfs=None, rms_dbfs=None, warnings=("silent",))
    store.complete(claimed(store.claim(a_claim(a_job(key="b.wav"), model))), silent)
    store.refuse(a_refusal(a_job(key="c.wav"), model_requested="cough@3"))
    return store


def exported(run: Run, file_format: str, what: str, out: Path, *words: str) -> Records:
    """The rows of an export, as Python values of the column's kind."""
    result = run("--format", file_format, "--rows", what, "--out", out, *words)
    assert result.exit_code == 0, result.output
    columns = COLUMNS[ExportRows(what)]
    if file_format == "jsonl":
        found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        convert: dict[ColumnKind, Callable[[Any], Any]] = {ColumnKind.TIME: datetime.fromisoformat}
    elif file_format == "csv":
        with out.open(encoding="utf-8", newline="") as stream:
            found = [{name: cell or None for name, cell in row.items()} for row in csv.DictReader(stream)]
        convert = {
            ColumnKind.INTEGER: int,
            ColumnKind.REAL: float,
            ColumnKind.BOOLEAN: {"true": True, "false": False}.__getitem__,
            ColumnKind.TIME: datetime.fromisoformat,
            ColumnKind.JSON: json.loads,
            ColumnKind.TEXTS: str.split,
        }
    else:
        found = pq.read_table(out).to_pylist()
        convert = {ColumnKind.JSON: json.loads}
    for row in found:
        assert list(row) == [column.name for column in columns]
        for column in columns:
            if row[column.name] is not None and column.kind in convert:
                row[column.name] = convert[column.kind](row[column.name])
    return found


@pytest.mark.parametrize("file_format", FORMATS)
def test_results_have_a_row_for_each_analysis_newest_first(
    filled: Store, run: Run, tmp_path: Path, file_format: str
) -> None:
    failed, silent, cough = exported(run, file_format, "results", tmp_path / "out")

    assert [failed["state"], silent["state"], cough["state"]] == ["failed", "succeeded", "succeeded"]
    assert failed["model"] == "cough@3"
    assert failed["error_class"] == "object_missing"
    assert failed["decision"] is None
    assert silent["decision"] is False
    assert silent["peak_dbfs"] is None
    assert silent["warnings"] == ["silent"]
    assert silent["recorded_at"] is None
    assert silent["metadata"] == {}
    assert cough["uri"] == 's3://recordings/-1+1/ä,\n".wav'
    assert cough["key"] == '-1+1/ä,\n".wav'
    assert cough["decision"] is True
    assert cough["bag_probability"] == 0.9
    assert cough["model"] == "cough@1"
    assert cough["peak_dbfs"] == -0.125
    assert cough["warnings"] == ["clipped", "dc_offset"]
    assert cough["segments"] == 2
    assert cough["events"] == 1
    assert cough["recorded_at"] == datetime(2026, 11, 22, 13, 30, 0, 500_000, UTC)
    assert (cough["site"], cough["subject"]) == ("north", "=A1")
    assert cough["metadata"]["ward"] == [1, "ä"]
    assert cough["enqueued_at"] == datetime(2026, 1, 1, tzinfo=UTC)
    assert cough["created_at"] < silent["created_at"] < failed["created_at"]


@pytest.mark.parametrize("file_format", FORMATS)
def test_segments_are_in_order_and_only_json_lacks_an_infinite_logit(
    filled: Store, run: Run, tmp_path: Path, file_format: str
) -> None:
    found = exported(run, file_format, "segments", tmp_path / "out")

    assert [(row["analysis_id"], row["segment_index"], row["start_s"]) for row in found] == [
        (2, 0, 0.0), (2, 1, 0.5), (2, 2, 1.0), (1, 0, 0.0), (1, 1, 0.5)
    ]  # fmt: skip
    infinite = None if file_format == "jsonl" else math.inf
    assert found[-1]["logit"] == infinite
    assert [row["probability"] for row in found] == [0.25, 0.5, 0.75, 0.0, 1.0]


@pytest.mark.parametrize("file_format", FORMATS)
def test_events_have_times_of_the_recording_and_of_the_day(
    filled: Store, run: Run, tmp_path: Path, file_format: str
) -> None:
    (event,) = exported(run, file_format, "events", tmp_path / "out")

    assert (event["start_s"], event["end_s"], event["peak"], event["mean"], event["bins"]) == (0.5, 1.5, 0.75, 0.5, 2)
    assert event["start_at"] == datetime(2026, 11, 22, 13, 30, 1, tzinfo=UTC)
    assert event["end_at"] == datetime(2026, 11, 22, 13, 30, 2, tzinfo=UTC)


@pytest.mark.parametrize("what", EVERYTHING)
def test_the_three_formats_have_the_same_values(filled: Store, run: Run, tmp_path: Path, what: str) -> None:
    tables = [exported(run, file_format, what, tmp_path / file_format) for file_format in FORMATS]
    for row in tables[0] + tables[2]:
        row.update((name, None) for name in ("logit",) if name in row and math.isinf(row[name]))
    # CSV does not tell an empty text or list from a missing one.
    tables = [[{name: value or None for name, value in row.items() if value != {}} for row in rows] for rows in tables]

    assert tables[0] == [{**row} for row in tables[1]]
    assert tables[1] == tables[2]


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("what", EVERYTHING)
def test_an_empty_table_has_its_columns(store: Store, run: Run, tmp_path: Path, file_format: str, what: str) -> None:
    assert exported(run, file_format, what, tmp_path / "out") == []
    if file_format == "csv":
        assert (tmp_path / "out").read_text().rstrip("\n").split(",") == [c.name for c in COLUMNS[ExportRows(what)]]
    if file_format == "parquet":
        assert pq.read_schema(tmp_path / "out").names == [c.name for c in COLUMNS[ExportRows(what)]]


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (["--decision", "cough"], [1]),
        (["--model", "cough@3"], [3]),
        (["--metadata", "site=north"], [1]),
        (["--prefix", "s3://recordings/b"], [2]),
        (["--state", "succeeded", "--newest"], [2, 1]),
        (["--limit", "2"], [3, 2]),
        (["--limit", "1", "--state", "succeeded"], [2]),
    ],
    ids=str,
)
def test_the_filters_are_those_of_results(
    filled: Store, run: Run, tmp_path: Path, words: list[str], ids: list[int]
) -> None:
    found = exported(run, "jsonl", "results", tmp_path / "out", *words)
    in_rows = {row["analysis_id"] for row in exported(run, "jsonl", "segments", tmp_path / "out", *words)}

    assert [row["analysis_id"] for row in found] == ids
    assert in_rows == set(ids) - {3}


def test_csv_is_exact_by_default_and_safe_for_a_spreadsheet_on_request(filled: Store, run: Run, tmp_path: Path) -> None:
    exact = exported(run, "csv", "results", tmp_path / "exact")[-1]
    run("--format", "csv", "--excel", "--out", tmp_path / "safe")
    safe = (tmp_path / "safe").read_bytes()
    row = list(csv.DictReader(io.StringIO(safe.decode("utf-8-sig"), newline="")))[-1]

    assert (exact["key"][0], exact["subject"]) == ("-", "=A1")
    assert safe.startswith(b"\xef\xbb\xbfuri,")
    assert (row["key"], row["subject"]) == ("'" + exact["key"], "'=A1")
    assert row["peak_dbfs"] == "-0.125"  # a number stays a number
    assert row["uri"] == exact["uri"]


def test_an_export_is_one_snapshot(filled: Store, model: ModelFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer analysis that comes meanwhile does not make the older one vanish from ``newest``."""
    monkeypatch.setattr(exports, "_BATCH", 1)
    newest = ResultFilter(newest=True)

    batches = filled.export(ExportRows.RESULTS, newest)
    found = [*next(batches)]
    again = a_job(key="b.wav", again=True)
    filled.complete(claimed(filled.claim(a_claim(again, model))), a_result(2, 0.9))
    found += [row for batch in batches for row in batch]

    assert [row.uri for row in found] == [f"s3://recordings/{key}" for key in ("c.wav", "b.wav", '-1+1/ä,\n".wav')]
    assert [row.analysis_id for batch in filled.export(ExportRows.RESULTS, newest) for row in batch] == [4, 3, 1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "nothing to write: give --format and --out, or --clips"),
        (["--format", "csv"], "--format and --out belong together"),
        (["--out", "x.csv"], "--format and --out belong together"),
        (["--format", "raven", "--out", "x", "--rows", "events"], "--rows is for csv, jsonl, parquet"),
        (["--format", "raven", "--out", "-"], "--format raven writes several files: give a folder as --out"),
        (["--format", "jsonl", "--out", "-", "--excel"], "--excel is for --format csv"),
        (["--clips", "-"], "--clips needs a folder"),
        (["--format", "csv", "--out", "-", "--model", "a b"], "'a b' is not a model"),
    ],
    ids=str,
)
def test_wrong_usage_is_one_line_and_status_2(run: Run, words: list[str], says: str) -> None:
    result = run(*words)

    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("tussis: ")
    assert says in line


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_file_that_cannot_be_written_is_one_line(filled: Store, run: Run, tmp_path: Path, file_format: str) -> None:
    for out, says in ((tmp_path / "no" / "out", "there is no folder"), (tmp_path, "it exists and is not a plain file")):
        result = run("--format", file_format, "--out", out)

        assert (result.exit_code, result.stdout) == (1, "")
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"tussis: cannot write {out}: ")
        assert says in line


def test_parquet_without_its_extra_names_the_extra_and_writes_nothing(
    filled: Store, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "tussis.worker.export.parquet", raising=False)
    (tmp_path / "out").write_text("before")

    result = run("--format", "parquet", "--out", tmp_path / "out")

    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("tussis: this command needs pyarrow, which is not installed: pip install ")
    assert "[export]" in line
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("out", "before")]


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "audacity", "raven"])
def test_no_format_needs_the_extra_of_a_worker(filled: Store, store_url: str, tmp_path: Path, file_format: str) -> None:
    """The extra ``store`` brings neither numpy nor torch nor audio libraries."""
    absent = {"numpy", "torch", "soundfile", "av", "celery", "structlog", "psutil"}
    code = (
        "import sys; from tussis.producer.cli import root; root(sys.argv[1:], standalone_mode=False); "
        f"sys.exit(', '.join({absent} & set(sys.modules)) or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "export", "--format", file_format, "--out", str(tmp_path / "out")],
        env=os.environ | {"TUSSIS_DATABASE_URL": store_url},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("file_format", FORMATS)
def test_standard_output_has_the_same_bytes_as_a_file(
    filled: Store, store_url: str, run: Run, tmp_path: Path, file_format: str
) -> None:
    run("--format", file_format, "--out", tmp_path / "out")

    done = subprocess.run(
        [TUSSIS, "export", "--format", file_format, "--out", "-"],
        env=os.environ | {"TUSSIS_DATABASE_URL": store_url},
        capture_output=True,
        check=True,
        timeout=120,
    )

    assert done.stdout == (tmp_path / "out").read_bytes()
    assert done.stderr == b""
