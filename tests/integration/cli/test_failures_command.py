"""``tussis failures``: list, retry and discard."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.support.deployment import Deployment
from tests.support.sounds import wav
from tests.support.store import a_claim, a_job, a_result, claimed, execute, model_facts
from tussis.producer.cli import root
from tussis.shared.messages import Job
from tussis.shared.states import AnalysisState, AttemptOutcome
from tussis.shared.text import printable


class Failures:
    """Analyses 1 to 6: four failures an hour apart from 2026-03-01T12:00 on, a discarded one, a result."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        store = deployment.store
        self.model = model_facts()
        self.jobs: list[Job] = []
        for key, error_class in (
            ("a/1.wav", "corrupt"),
            ("a/2.wav", "expired"),
            ("b/3.wav", "corrupt"),
            ("b/4.wav", "too_long"),
            ("b/5.wav", "corrupt"),
        ):
            job = a_job(key=key, etag="e1")
            store.fail(claimed(store.claim(a_claim(job, self.model))), error_class, f"what is wrong with [{key}]")
            self.jobs.append(job)
        store.discard([5])
        store.complete(claimed(store.claim(a_claim(a_job(key="c/6.wav"), self.model))), a_result())
        execute(
            deployment.environment["TUSSIS_DATABASE_URL"],
            "UPDATE analyses SET finished_at = timestamptz '2026-03-01 12:00Z' + (id - 1) * interval '1 h'",
        )

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(root, ["failures", *arguments], env=self.deployment.environment)

    def lines(self, *arguments: str) -> list[dict[str, Any]]:
        done = self.run(*arguments)
        assert done.exit_code == 0, done.output
        return [json.loads(line) for line in done.stdout.splitlines()]

    def state(self, analysis_id: int) -> str:
        analysis = self.deployment.store.analysis(analysis_id)
        assert analysis is not None
        return analysis.state.value


@pytest.fixture
def failures(deployment: Deployment) -> Failures:
    return Failures(deployment)


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        ([], [4, 3, 2, 1]),
        (["--class", "corrupt"], [3, 1]),
        (["--class", "corrupt", "--discarded"], [5, 3, 1]),
        (["--prefix", "s3://recordings/b/"], [4, 3]),
        (["--since", "2026-03-01T13:00", "--until", "2026-03-01T15:00"], [3, 2]),
        (["--limit", "1"], [4]),
        (["--class", "empty"], []),
    ],
    ids=str,
)
def test_the_list(failures: Failures, arguments: list[str], ids: list[int]) -> None:
    assert [line["analysis_id"] for line in failures.lines("list", "--json", *arguments)] == ids
    table = failures.run("list", *arguments)
    assert table.exit_code == 0
    if ids:
        assert all(
            f"s3://recordings/{job.key}" in table.stdout for job in (failures.jobs[number - 1] for number in ids)
        )
    else:
        assert table.stdout == "No failure matches.\n"


def test_the_list_by_class(failures: Failures) -> None:
    assert failures.lines("list", "--by-class", "--json") == [
        {"class": "corrupt", "failures": 2},
        {"class": "expired", "failures": 1},
        {"class": "too_long", "failures": 1},
    ]
    assert failures.run("list", "--by-class", "--prefix", "s3://recordings/a").stdout.split() == [
        "corrupt", "1", "expired", "1",
    ]  # fmt: skip


def test_a_line_of_the_list_says_what_is_wrong(failures: Failures) -> None:
    (line,) = failures.lines("list", "--json", "--class", "expired")
    assert line["error"] == {"class": "expired", "message": "what is wrong with [a/2.wav]"}
    assert line["finished_at"] == "2026-03-01T13:00:00+00:00"
    assert (line["attempts"], line["state"], line["job_id"]) == (1, "failed", failures.jobs[1].job_id)
    # Brackets are text, not markup.
    assert "[a/2.wav]" in failures.run("list").stdout


def test_show_tells_the_history(failures: Failures) -> None:
    (told,) = failures.lines("show", "2", "--json")
    assert [(attempt["number"], attempt["outcome"], attempt["error"]["class"]) for attempt in told["history"]] == [
        (1, "failed", "expired")
    ]
    shown = failures.run("show", "2").stdout
    assert "attempt  1" in shown
    assert "expired: what is wrong with [a/2.wav]" in shown


@pytest.mark.parametrize("grouped", [[], ["--by-class"], ["--json"]], ids=str)
def test_the_list_refuses_a_class_that_is_neither_known_nor_stored(failures: Failures, grouped: list[str]) -> None:
    done = failures.run("list", "--class", "too_lang", *grouped)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == (
        "tussis: Invalid value for --class: no error class 'too_lang': did you mean 'too_long'?"
        " (tussis failures list --help)\n"
    )


@pytest.mark.parametrize("state", ["failed", "discarded"])
def test_a_class_of_another_version_can_be_chosen(failures: Failures, state: str) -> None:
    execute(
        failures.deployment.environment["TUSSIS_DATABASE_URL"],
        f"UPDATE analyses SET error_class = 'of_next_year' WHERE id = {1 if state == 'failed' else 5}",
    )
    found = failures.lines("list", "--json", "--class", "of_next_year")
    assert [line["analysis_id"] for line in found] == ([1] if state == "failed" else [])


def test_a_piped_list_has_a_row_a_line(failures: Failures) -> None:
    key = "long/" * 150 + "\n\t\x1b[31m:bell:.wav"
    store = failures.deployment.store
    job = a_job(key=key, etag="e1")
    store.fail(claimed(store.claim(a_claim(job, failures.model))), "corrupt", "two\nlines " + "x" * 300)

    table = failures.run("list")
    assert table.exit_code == 0
    header, first, *others = table.stdout.splitlines()
    assert header.split() == ["id", "class", "failed", "at", "(UTC)", "attempts", "recording", "message"]
    assert first.rstrip().endswith(f"  s3://recordings/{printable(key)}  two\\nlines {'x' * 300}")
    assert [line.split()[0] for line in others] == ["4", "3", "2", "1"]
    assert all(line.rstrip().endswith(f"what is wrong with [{line.split()[5].split('/', 3)[3]}]") for line in others)

    chosen = failures.run("retry", "--class", "corrupt", "--limit", "1", "--dry-run")
    assert chosen.stdout == f"7\tcorrupt\ts3://recordings/{printable(key)}\n"


@pytest.mark.parametrize("command", ["retry", "discard"])
@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "Select failures"),
        (["--discarded"], 2, "Select failures"),
        (["1", "--class", "corrupt"], 2, "not both"),
        (["1", "--all"], 2, "not both"),
        (["--class", "empty"], 1, "no failure matches"),
        (["--class", "corupt"], 2, "no error class 'corupt': did you mean 'corrupt'?"),
        (["--class", "nonsense"], 2, "no error class 'nonsense': "),
        (["--class", "caf\udce9"], 2, "no error class 'caf\\udce9': "),
        (["--since", "2999-01-01"], 2, "is in the future"),
        (["999", "1000"], 1, "no failure has the id 999, 1000"),
        (["6"], 1, "no failure has the id 6"),
        (["--prefix", "nonsense"], 1, "not an S3 URI"),
    ],
    ids=str,
)
def test_what_chooses_nothing_is_refused(
    failures: Failures, command: str, arguments: list[str], status: int, words: str
) -> None:
    done = failures.run(command, *arguments)
    assert done.exit_code == status, done.output
    assert words in done.stderr
    assert failures.deployment.ledger.depth().open == 0
    assert [failures.state(number) for number in range(1, 7)] == ["failed"] * 4 + ["discarded", "succeeded"]


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        (["2"], [2]),
        (["1", "5"], [5, 1]),
        (["--class", "corrupt"], [3, 1]),
        (["--class", "corrupt", "--discarded"], [5, 3, 1]),
        (["--all"], [4, 3, 2, 1]),
        (["--all", "--limit", "2"], [4, 3]),
        (["--all", "--prefix", "s3://recordings/a/"], [2, 1]),
    ],
    ids=str,
)
def test_a_retry_opens_the_jobs_of_the_failures(failures: Failures, arguments: list[str], ids: list[int]) -> None:
    ledger = failures.deployment.ledger
    dry = failures.lines("retry", *arguments, "--dry-run", "--json")
    assert [(line["analysis_id"], line["sent"]) for line in dry] == [(number, False) for number in ids]
    assert ledger.depth().open == 0

    done = failures.lines("retry", *arguments, "--json", "--priority", "2")

    assert [(line["analysis_id"], line["sent"]) for line in done] == [(number, True) for number in ids]
    for number in ids:
        job = ledger.find(failures.jobs[number - 1].job_id)
        assert job is not None
        assert (job.reopen, job.priority, job.etag) == (True, 2, "e1")
    assert ledger.depth().open == len(ids)
    again = failures.run("retry", *arguments)
    assert f"0 enqueued again, {len(ids)} already open" in again.stderr


def test_an_id_that_is_no_failure_is_told_and_the_others_are_done(failures: Failures) -> None:
    done = failures.run("retry", "1", "6", "1")
    assert done.exit_code == 1
    assert "1 enqueued again" in done.stderr
    assert "tussis: 6 is not a failure" in done.stderr


def test_discarding(failures: Failures) -> None:
    dry = failures.run("discard", "--class", "corrupt", "--dry-run")
    assert "2 would be discarded" in dry.stderr
    assert failures.state(1) == "failed"

    done = failures.run("discard", "--class", "corrupt")

    assert done.exit_code == 0
    assert "2 discarded" in done.stderr
    assert [line.split("\t") for line in done.stdout.splitlines()] == [
        ["3", "corrupt", "s3://recordings/b/3.wav"],
        ["1", "corrupt", "s3://recordings/a/1.wav"],
    ]
    assert [failures.state(number) for number in (1, 3, 5)] == ["discarded"] * 3
    assert [line["analysis_id"] for line in failures.lines("list", "--json")] == [4, 2]


def test_a_job_that_is_enqueued_anew_is_open_and_tells_of_the_failure_before(failures: Failures) -> None:
    """A caller that waits for the retry with `tussis job` must not take the old failure for the answer."""
    job, environment = failures.jobs[0].job_id, failures.deployment.environment
    before = CliRunner().invoke(root, ["job", job, "--json"], env=environment)
    assert (before.exit_code, json.loads(before.stdout)["state"]) == (1, "failed")

    assert failures.run("retry", "1").exit_code == 0

    after = CliRunner().invoke(root, ["job", job, "--json"], env=environment)
    told = json.loads(after.stdout)
    assert (after.exit_code, told["state"], told["error"]["class"]) == (0, "open", "corrupt")
    assert told["enqueued_at"] > json.loads(before.stdout)["enqueued_at"]


def test_a_retried_recording_succeeds_and_keeps_its_history_and_a_discarded_one_stays(deployment: Deployment) -> None:
    """The complete path with real workers. The second worker has a higher limit."""
    data = wav(0.5, seed=1)
    limited = deployment.enqueue("long.wav", wav(3.0, seed=2))
    aside = deployment.enqueue("aside.wav", wav(3.0, seed=3))
    worker = deployment.worker(concurrency=1, max_duration_s=1)
    fine = deployment.enqueue("fine.wav", data)
    deployment.wait_drained(60)
    deployment.assert_accounted(failures=2)
    assert deployment.analysis(limited).error_class == "too_long"
    worker.end()

    cli, environment = CliRunner(), deployment.environment
    put_aside = str(deployment.analysis(aside).id)
    assert cli.invoke(root, ["failures", "discard", put_aside], env=environment).exit_code == 0
    deployment.worker(concurrency=1)
    done = cli.invoke(root, ["failures", "retry", "--all"], env=environment)
    assert done.exit_code == 0, done.output
    assert "1 enqueued again" in done.stderr
    deployment.wait_drained(60)

    analysis = deployment.analysis(limited)
    assert analysis.state is AnalysisState.SUCCEEDED
    assert analysis.attempts == 2
    assert len(deployment.store.segments_of(analysis.id)) == analysis.segments
    shown = cli.invoke(root, ["failures", "show", str(analysis.id), "--json"], env=environment)
    history = json.loads(shown.stdout)["history"]
    assert [attempt["outcome"] for attempt in history] == [AttemptOutcome.FAILED, AttemptOutcome.SUCCEEDED]
    assert history[0]["error"]["class"] == "too_long"
    assert deployment.analysis(aside).state is AnalysisState.DISCARDED
    assert deployment.analysis(fine).attempts == 1
    assert len(deployment.analyses()) == 3
    nothing = cli.invoke(root, ["failures", "retry", "--all"], env=environment)
    assert nothing.exit_code == 1
    assert "no failure matches" in nothing.stderr
