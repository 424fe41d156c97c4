"""``tussis results`` on a filled database."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, execute, model_facts
from tussis.producer.cli import root
from tussis.shared.states import AttemptOutcome
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store
from tussis.shared.text import printable
from tussis.worker.cli import results as results_command
from tussis.worker.cli.moments import moment
from tussis.worker.local import terminal

Run = Callable[..., Result]


@pytest.fixture
def run(store_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``tussis results`` in a terminal of 80 columns; None for ``columns`` is a pipe."""
    monkeypatch.setenv("TUSSIS_DATABASE_URL", store_url)

    def run(*words: str, columns: int | None = 80) -> Result:
        for module in (terminal, results_command):
            monkeypatch.setattr(module, "on_terminal", lambda: columns is not None)
        return CliRunner().invoke(root, ["results", *words], env={"COLUMNS": str(columns or 80)})

    return run


@pytest.fixture
def filled(store: Store, model: ModelFacts) -> Store:
    """A cough, no cough, a failure, a waiting analysis, oldest to newest."""
    cough = claimed(store.claim(a_claim(a_job(key="ward/1.wav", metadata={"a": 1}), model)))
    store.complete(cough, a_result(3, 0.9, truncated=True, duration_s=60.0, analyzed_s=17.5, segments_total=120))
    store.complete(claimed(store.claim(a_claim(a_job(key="ward/2.wav"), model))), a_result(2, 0.25))
    store.refuse(a_refusal(a_job(key="home/3.wav")))
    waiting = claimed(store.claim(a_claim(a_job(key="home/4.wav"), model)))
    store.release(waiting, AttemptOutcome.TRANSIENT, "storage_unavailable", "503")
    return store


def objects(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_table(filled: Store, run: Run) -> None:
    told = run()

    assert told.exit_code == 0
    lines = [line.rstrip() for line in told.stdout.splitlines()]
    assert lines == [
        "answer    prob.  length  recording",
        "waiting                  s3://recordings/home/4.wav",
        "                         storage_unavailable: 503",
        "failed                   s3://recordings/home/3.wav",
        "                         object_missing: no object at s3://recordings/home/3.wav",
        "no cough  0.250   1.0 s  s3://recordings/ward/2.wav",
        "COUGH     0.900  60.0 s  s3://recordings/ward/1.wav",
        "                         only the first 17.5 s were analysed",
        "4 shown: 1 waiting, 1 failed, 1 no cough, 1 cough. Model: cough@1, none.",
        "Profile: documented.",
    ]


@pytest.mark.parametrize("columns", [40, 80, 109, 110, 140, 200])
def test_the_table_fits_the_terminal(filled: Store, model: ModelFacts, run: Run, columns: int) -> None:
    newer = model_facts(name="a-model-with-a-long-name", version="2026.11.22", sha256="b" * 64)
    claim = claimed(filled.claim(a_claim(a_job(key="é" * 150), newer, profile="legacy")))
    filled.complete(claim, a_result(32))

    told = run("--segments", columns=columns)

    assert told.exit_code == 0
    assert max(len(line) for line in told.stdout.splitlines()) <= columns
    assert ("first attempt (UTC)" in told.stdout) is (columns >= 110)
    # The key is wrapped, not cut.
    assert told.stdout.count("é") == 150


def test_segments_in_the_table(filled: Store, run: Run) -> None:
    told = run("--segments", "--decision", "no-cough")
    assert "   0.0 to   2.0 s   0.333 ▇▇▇" in told.stdout
    assert "   0.5 to   2.5 s   0.667 ▇▇▇▇▇▇▇" in told.stdout


def test_a_piped_table_has_a_row_a_line(filled: Store, model: ModelFacts, run: Run) -> None:
    key = "long " * 200 + "\n[\x1b[31m]:bell:\t\u202e.wav"
    filled.complete(claimed(filled.claim(a_claim(a_job(key=key), model))), a_result(2, 0.99998))

    told = run(columns=None)

    assert told.exit_code == 0
    lines = told.stdout.splitlines()
    cells = [re.split(r" {2,}", line.rstrip()) for line in lines]
    assert cells[1][:4] == ["COUGH", ">0.999", "1.0 s", f"s3://recordings/{printable(key)}"]
    assert [row[0] for row in cells[1:-1]] == ["COUGH", "waiting", "failed", "no cough", "COUGH"]
    assert "s3://recordings/home/4.wav" in lines[2]
    assert cells[2][-1] == "storage_unavailable: 503"
    assert cells[3][-1] == "object_missing: no object at s3://recordings/home/3.wav"
    assert cells[5][-1] == "only the first 17.5 s were analysed"
    assert lines[6:] == [
        "5 shown: 2 cough, 1 waiting, 1 failed, 1 no cough. Model: cough@1, none. Profile: documented."
    ]
    assert "\x1b" not in told.stdout


def test_piped_segments_are_rows_that_name_their_recording(filled: Store, run: Run) -> None:
    told = run("--segments", "--decision", "no-cough", columns=None)

    lines = [re.split(r" {2,}", line.strip()) for line in told.stdout.splitlines()]
    assert lines[2:4] == [
        ["segment", "0.333", "0.0 to 2.0 s", "s3://recordings/ward/2.wav"],
        ["segment", "0.667", "0.5 to 2.5 s", "s3://recordings/ward/2.wav"],
    ]


def test_a_probability_beside_the_threshold_is_not_rounded_onto_it(store: Store, model: ModelFacts, run: Run) -> None:
    for key, probability in (("a", 0.61004), ("b", 0.60996)):
        store.complete(claimed(store.claim(a_claim(a_job(key=key), model))), a_result(2, probability))

    told = run(columns=None).stdout

    assert re.search(r"^COUGH +0\.61004 .*/a", told, re.MULTILINE)
    assert re.search(r"^no cough +0\.60996 .*/b", told, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--since", "2999-01-01"], "--since 2999-01-01 00:00 is in the future: give a time before "),
        (["--since", "1h", "--until", "2h"], " is not before --until "),
        (["--state", "nonsense"], "'nonsense' is not one of 'running', "),
        (["--decision", "maybe"], "'maybe' is not one of 'cough', 'no-cough'"),
        (["--prefix", "clinic"], "not an S3 URI: 'clinic': write s3://bucket/key"),
    ],
)
def test_a_filter_that_can_match_nothing_is_refused(filled: Store, run: Run, words: list[str], says: str) -> None:
    told = run(*words)

    assert told.exit_code != 0
    assert told.stdout == ""
    (line,) = told.stderr.splitlines()
    assert says in line


def test_json_lines(filled: Store, run: Run) -> None:
    paused, refused, quiet, cough = objects(run("--json"))

    assert cough["uri"] == "s3://recordings/ward/1.wav"
    assert (cough["state"], cough["decision"], cough["bag_probability"], cough["threshold"]) == (
        "succeeded",
        True,
        0.9,
        0.61,
    )
    assert (cough["model"], cough["profile"], cough["metadata"]) == ("cough@1", "documented", {"a": 1})
    assert (cough["duration_s"], cough["analyzed_s"], cough["truncated"]) == (60.0, 17.5, True)
    assert datetime.fromisoformat(cough["finished_at"]).utcoffset() == timedelta(0)
    assert "error" not in cough
    assert "segments" not in cough
    assert quiet["decision"] is False
    assert refused["error"] == {"class": "object_missing", "message": "no object at s3://recordings/home/3.wav"}
    assert (refused["state"], refused["decision"], refused["threshold"]) == ("failed", None, None)
    assert (paused["state"], paused["finished_at"]) == ("waiting", None)


def test_json_with_segments(filled: Store, run: Run) -> None:
    (cough,) = objects(run("--json", "--segments", "--decision", "cough"))
    assert cough["segments"] == [
        {"index": 0, "start_s": 0.0, "end_s": 2.0, "probability": 0.25, "logit": -1.0},
        {"index": 1, "start_s": 0.5, "end_s": 2.5, "probability": 0.5, "logit": -0.75},
        {"index": 2, "start_s": 1.0, "end_s": 3.0, "probability": 0.75, "logit": -0.5},
    ]


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["--decision", "cough"], ["ward/1.wav"]),
        (["--state", "failed"], ["home/3.wav"]),
        (["--prefix", "s3://recordings/ward/"], ["ward/2.wav", "ward/1.wav"]),
        (["--limit", "1"], ["home/4.wav"]),
        (["--since", "1h", "--limit", "2"], ["home/4.wav", "home/3.wav"]),
        (["--until", "1h"], []),
        (["--until", "2020-01-01"], []),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_filters(filled: Store, run: Run, words: list[str], keys: list[str]) -> None:
    assert [told["uri"].removeprefix("s3://recordings/") for told in objects(run("--json", *words))] == keys


def test_the_table_stops_at_fifty_and_says_so(store: Store, store_url: str, model: ModelFacts, run: Run) -> None:
    store.refuse(a_refusal(a_job()))
    execute(
        store_url,
        "INSERT INTO analyses (recording_id, profile, profile_overridden, coverage, forced_by, job_id, state, "
        "attempt_token, attempts, error_class, error_message, worker, device, enqueued_at, started_at, finished_at) "
        "SELECT recording_id, profile, false, coverage, n, job_id, state, attempt_token, attempts, error_class, "
        "error_message, worker, device, enqueued_at, started_at, finished_at "
        "FROM analyses, generate_series(1, 59) n",
    )
    assert "50 shown: 50 failed. There may be more: use --limit, --since or --until." in run(columns=200).stdout
    assert "60 shown: 60 failed. Model" in run("--limit", "100", columns=200).stdout
    assert len(objects(run("--json"))) == 60


def test_an_empty_store_says_what_to_do(store: Store, run: Run) -> None:
    assert run().stdout == "No results yet: enqueue a recording with `tussis enqueue`.\n"
    assert run("--decision", "cough").stdout == "No results match.\n"
    assert run("--json").stdout == ""


def test_control_characters_of_a_key_stay_out_of_the_terminal(store: Store, run: Run) -> None:
    store.refuse(a_refusal(a_job(key="a\x1b[31m[bold]b\n.wav"), message="see \x1b]0;title\x07"))
    told = run().stdout
    assert "\x1b" not in told
    assert "\x07" not in told
    assert "s3://recordings/a\\x1b[31m[bold]b\\n.wav" in told


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--since", "yesterday"], 2, "'yesterday' is not a time"),
        (["--limit", "0"], 2, "0 is not in the range x>=1"),
        (["--prefix", "recordings/ward"], 1, "tussis: not an S3 URI: 'recordings/ward'"),
        (["--state", "done"], 2, "'done' is not one of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_option_is_one_clear_line(store: Store, run: Run, words: list[str], code: int, says: str) -> None:
    told = run(*words)
    assert told.exit_code == code
    assert says in told.stderr
    assert told.stdout == ""


def test_without_a_schema(database_url: str) -> None:
    told = CliRunner().invoke(root, ["results"], env={"TUSSIS_DATABASE_URL": database_url})
    assert told.exit_code == 1
    assert told.stderr.count("\n") == 1
    assert "run `tussis migrate`" in told.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
        ("2026-11-22T14:30", datetime(2026, 11, 22, 14, 30, tzinfo=UTC)),
        ("2026-11-22T14:30:05+02:00", datetime(2026, 11, 22, 12, 30, 5, tzinfo=UTC)),
        ("2026-11-22T14:30Z", datetime(2026, 11, 22, 14, 30, tzinfo=UTC)),
    ],
)
def test_moments(text: str, expected: datetime) -> None:
    assert moment(click.Context(root), click.Option(["--since"]), text) == expected


@pytest.mark.parametrize(
    ("text", "ago_s"), [("90s", 90), ("30min", 1800), ("2h", 7200), ("7d", 604_800), ("1w", 604_800)]
)
def test_moments_ago(text: str, ago_s: float) -> None:
    found = moment(click.Context(root), click.Option(["--since"]), text)
    assert found is not None
    assert abs((datetime.now(UTC) - found).total_seconds() - ago_s) < 5


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01", "5", "5m", "999999w"])
def test_moments_that_are_none(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a time"):
        moment(click.Context(root), click.Option(["--since"]), text)
