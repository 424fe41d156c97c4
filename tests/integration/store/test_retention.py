"""``tussis retain``, while workers write, and what stays of the rows that it deleted."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from click.testing import CliRunner, Result

from tests.support.months import make_month, make_older, segments_in
from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, execute, label, model_facts, rows
from tests.support.waiting import wait_until
from tussis.producer.cli import root
from tussis.shared.errors import FailureUnknown
from tussis.shared.messages import Job
from tussis.shared.states import AnalysisState
from tussis.shared.store.known import AnalysisCriteria, Deleted, Known
from tussis.shared.store.records import ModelFacts, Settled
from tussis.shared.store.repository import Store
from tussis.worker.jobs.report import describe

Run = Callable[..., Result]
#: The tables that have rows of an analysis.
TABLES = ("analyses", "recordings", "bags", "segments", "events", "attempts", "jobs")


@pytest.fixture
def run(store_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``tussis`` on the database of the test."""
    monkeypatch.setenv("TUSSIS_DATABASE_URL", store_url)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *words: CliRunner().invoke(root, list(words))


def retain(run: Run, *words: str) -> list[str]:
    result = run("retain", "--older-than", "400d", *words)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()[1:]


def answered(store: Store, model: ModelFacts, key: str, **job: object) -> tuple[int, Job]:
    """Store a result of four segments; returns the id of its analysis, and its job."""
    asked = a_job(**{"key": key, "model": label(model)} | job)
    claim = claimed(store.claim(a_claim(asked, model)))
    assert store.complete(claim, a_result())
    return claim.analysis_id, asked


def counts(url: str) -> dict[str, int]:
    return {name: rows(url, f"SELECT count(*) FROM {name}")[0][0] for name in TABLES}


def test_without_a_yes_nothing_is_deleted(store: Store, store_url: str, model: ModelFacts, run: Run) -> None:
    month = make_month(store_url, 20)
    old, _ = answered(store, model, "old.wav")
    make_older(store_url, old, 20)
    answered(store, model, "new.wav")
    before = counts(store_url)

    told = retain(run, "--results", "--tombstones")

    assert told[0].startswith(f"  partition {month}: 4 segments, ")
    assert told[1:] == [
        "  1 analyses with all their rows, and 1 recordings",
        "Nothing was deleted. Delete it with --yes.",
    ]
    assert counts(store_url) == before
    assert segments_in(store_url, month) == 4


def test_nothing_is_old(store: Store, store_url: str, model: ModelFacts, run: Run) -> None:
    answered(store, model, "new.wav")
    before = counts(store_url)
    assert retain(run, "--results", "--tombstones", "--yes") == ["  nothing"]
    assert counts(store_url) == before


def test_a_time_in_the_future_is_refused(run: Run) -> None:
    result = run("retain", "--older-than", f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}", "--yes")
    assert result.exit_code == 2
    assert "in the future" in result.stderr


def test_whole_months_of_segments_are_dropped(store: Store, store_url: str, model: ModelFacts, run: Run) -> None:
    """Given segments of three months and of the default, those of the oldest month and the default's old rows go."""
    oldest, young = make_month(store_url, 20), make_month(store_url, 5)
    ids = {name: answered(store, model, f"{name}.wav")[0] for name in ("oldest", "default", "young", "new")}
    make_older(store_url, ids["oldest"], 20)
    make_older(store_url, ids["default"], 30)
    make_older(store_url, ids["young"], 5)
    before = counts(store_url)

    assert retain(run, "--yes")[2:] == [
        f"dropped the partition {oldest}",
        "deleted 4 segments of segments_default",
    ]

    assert rows(store_url, "SELECT to_regclass(%s)", oldest) == [(None,)]
    assert segments_in(store_url, young) == 4
    assert counts(store_url) == before | {"segments": 8}
    assert [len(store.segments_of(ids[name])) for name in ids] == [0, 0, 4, 4]
    assert retain(run, "--yes") == ["  nothing"]


def test_the_answer_of_an_old_failure_that_was_retried_lately_stays(
    store: Store, store_url: str, model: ModelFacts, run: Run
) -> None:
    """Given a failure whose month was dropped, its retry works, and its segments stay in the default."""
    month = make_month(store_url, 20)
    job = a_job(key="a.wav")
    failed = claimed(store.claim(a_claim(job, model)))
    store.fail(failed, "corrupt", "why")
    make_older(store_url, failed.analysis_id, 20)
    assert f"dropped the partition {month}" in retain(run, "--yes")

    analysis = store.analysis(failed.analysis_id)
    assert analysis is not None
    retried = claimed(store.claim(a_claim(store.retry_job(analysis), model)))
    assert retried.analysis_id == failed.analysis_id
    assert store.complete(retried, a_result())

    assert segments_in(store_url, "segments_default") == 4
    assert len(store.segments_of(failed.analysis_id)) == 4
    assert retain(run, "--results", "--yes") == ["  nothing"]
    assert len(store.segments_of(failed.analysis_id)) == 4


def test_a_failure_that_was_deleted_is_not_retried(store: Store, store_url: str, model: ModelFacts, run: Run) -> None:
    failed = claimed(store.claim(a_claim(a_job(key="a.wav"), model)))
    store.fail(failed, "corrupt", "why")
    make_older(store_url, failed.analysis_id, 20)
    listed = store.analysis(failed.analysis_id)
    assert listed is not None
    retain(run, "--results", "--yes")
    with pytest.raises(FailureUnknown, match="was deleted"):
        store.retry_job(listed)


def test_results_are_deleted_with_all_their_rows(store: Store, store_url: str, model: ModelFacts, run: Run) -> None:
    make_month(store_url, 20)
    newer = model_facts(version="2", sha256="b" * 64)
    store.register_model(newer)
    old = [answered(store, model, f"{number}.wav")[0] for number in range(3)]
    # Two analyses of one recording: the recording goes with the last of them.
    answered(store, newer, "1.wav")
    kept, _ = answered(store, model, "new.wav")
    store.complete(claimed(store.claim(a_claim(a_job(key="again.wav", model="cough@1"), model))), a_result())
    failed = claimed(store.claim(a_claim(a_job(key="failed.wav", model="cough@1"), model)))
    store.fail(failed, "corrupt", "why")
    missing = store.refuse(a_refusal(a_job(key="missing.wav"), etag=""))
    open_one = claimed(store.claim(a_claim(a_job(key="open.wav", model="cough@1"), model)))
    assert isinstance(missing, int)
    for analysis_id in (*old, failed.analysis_id, missing, open_one.analysis_id):
        make_older(store_url, analysis_id, 20)

    told = retain(run, "--results")
    assert "  5 analyses with all their rows, and 4 recordings" in told
    assert "deleted 5 analyses and 4 recordings" in retain(run, "--results", "--yes")

    left = {row[0] for row in rows(store_url, "SELECT key FROM recordings")}
    assert left == {"1.wav", "new.wav", "again.wav", "open.wav"}
    assert counts(store_url)["analyses"] == 4
    assert rows(
        store_url,
        "SELECT count(*) FROM analyses JOIN attempts ON analysis_id = analyses.id JOIN jobs USING (analysis_id)",
    ) == [(4,)]
    for table in ("bags", "events"):
        assert rows(store_url, f"SELECT count(*) FROM {table}") == [(3,)], table
    assert len(store.segments_of(kept)) == 4
    # No entity tag: no sweep can meet it.
    assert [row[:4] for row in rows(store_url, "SELECT * FROM tombstones ORDER BY key")] == [
        ("recordings", key, "e1", 1) for key in ("0.wav", "1.wav", "2.wav", "failed.wav")
    ]
    assert store.complete(open_one, a_result())


def test_tombstones_are_what_a_sweep_counts_as_deleted(
    store: Store, store_url: str, model: ModelFacts, run: Run
) -> None:
    plain, _ = answered(store, model, "plain.wav")
    other = claimed(store.claim(a_claim(a_job(key="profile.wav"), model, profile="legacy", profile_overridden=True)))
    store.fail(other, "corrupt", "why")
    for analysis_id in (plain, other.analysis_id):
        make_older(store_url, analysis_id, 20)
    retain(run, "--results", "--yes")

    def known(**criteria: str) -> set[str]:
        found = store.known(
            "recordings",
            [("plain.wav", "e1"), ("profile.wav", "e1"), ("plain.wav", "e2")],
            AnalysisCriteria(**criteria),
        )
        assert all(isinstance(each, Deleted) for each in found.values())
        return {key for key, _ in found}

    assert known(sha256="a" * 64, profile="documented") == {"plain.wav"}
    assert known(sha256="a" * 64, profile="legacy") == {"profile.wav"}
    assert known(model="cough@1") == known(model="cough") == known() == {"plain.wav"}
    assert known(sha256="b" * 64) == known(model="other") == known(coverage="full") == set()

    # Only tombstones that are themselves old are deleted.
    assert retain(run, "--tombstones", "--yes") == ["  nothing"]
    execute(store_url, "UPDATE tombstones SET deleted_at = deleted_at - interval '401 days'")
    assert retain(run, "--tombstones") == ["  2 tombstones", "Nothing was deleted. Delete it with --yes."]
    assert "deleted 2 tombstones" in retain(run, "--tombstones", "--yes")
    assert known(sha256="a" * 64) == set()


def test_a_message_of_a_deleted_job_is_analysed_again(
    store: Store, store_url: str, model: ModelFacts, run: Run
) -> None:
    """A redelivered message, or the same object enqueued again, is a request: it gets one new answer."""
    old, job = answered(store, model, "a.wav")
    make_older(store_url, old, 20)
    retain(run, "--results", "--yes")
    assert store.job(job.job_id) is None

    again = claimed(store.claim(a_claim(job, model)))
    assert again.analysis_id != old
    assert again.number == 1
    assert store.complete(again, a_result())
    assert store.claim(a_claim(job, model)) == Settled(again.analysis_id, AnalysisState.SUCCEEDED)
    newer = replace(job, enqueued_at=job.enqueued_at + 60)
    assert store.claim(a_claim(newer, model)) == Settled(again.analysis_id, AnalysisState.SUCCEEDED)

    # The analysis counts, not the tombstone.
    [found] = store.known("recordings", [("a.wav", "e1")], AnalysisCriteria()).values()
    assert isinstance(found, Known)
    assert rows(store_url, "SELECT count(*) FROM analyses") == rows(store_url, "SELECT count(*) FROM tombstones")
    # Deleted once more, it leaves the one tombstone with the later time.
    [(first,)] = rows(store_url, "SELECT deleted_at FROM tombstones")
    make_older(store_url, again.analysis_id, 20)
    retain(run, "--results", "--yes")
    [(second,)] = rows(store_url, "SELECT deleted_at FROM tombstones")
    assert second > first


def test_deleted_segments_are_not_reported_as_none(store: Store, store_url: str, model: ModelFacts, run: Run) -> None:
    make_month(store_url, 20)
    old, job = answered(store, model, "old.wav")
    _, new = answered(store, model, "new.wav")
    failed = claimed(store.claim(a_claim(a_job(key="failed.wav", model="cough@1"), model)))
    store.fail(failed, "corrupt", "why")
    make_older(store_url, old, 20)
    retain(run, "--yes")

    lines = [json.loads(line) for line in run("results", "--json", "--segments").stdout.splitlines()]
    found = {line["uri"].rsplit("/", 1)[1]: line["segments"] for line in lines}
    assert found["old.wav"] is None
    assert len(found["new.wav"]) == 4
    assert found["failed.wav"] == []
    told = {
        line.split("recordings/")[1].split(".")[0]: line
        for line in run("results", "--segments").stdout.splitlines()
        if "recordings/" in line and "segment  " not in line
    }
    assert "its segments were deleted by `tussis retain`" in told["old"]
    assert "deleted" not in told["new"]
    assert "deleted" not in run("results").stdout

    answer = store.job(job.job_id)
    assert answer is not None
    report = describe(job.job_id, None, None, answer)
    assert report["segments"] is None
    assert report["events"] == 1
    kept = store.job(new.job_id)
    assert kept is not None
    assert len(describe(new.job_id, None, None, kept)["segments"]) == 4
    # The views: the result with its numbers, and no rows of segments.
    assert rows(store_url, "SELECT segments, decision FROM current WHERE key = 'old.wav'") == [(4, True)]
    assert rows(store_url, "SELECT count(*) FROM current_segments WHERE key = 'old.wav'") == [(0,)]


def test_results_continue_while_old_ones_are_deleted(store: Store, store_url: str, model: ModelFacts, run: Run) -> None:
    """Given workers that wait 2 s for a lock at most, months are dropped and results deleted without an error."""
    months = [make_month(store_url, number) for number in range(20, 26)]
    for number in range(60):
        analysis_id, _ = answered(store, model, f"old/{number}.wav")
        make_older(store_url, analysis_id, 20 + number % 6)
    stop = threading.Event()
    longest, written, failed = [0.0, 0.0], [0, 0], []

    def write(index: int) -> None:
        try:
            with Store.connect(store_url) as own:
                while not stop.is_set():
                    began = time.monotonic()
                    answered(own, model, f"{index}/{written[index]}.wav")
                    longest[index] = max(longest[index], time.monotonic() - began)
                    written[index] += 1
        except Exception as error:
            failed.append(error)

    with psycopg.connect(store_url, autocommit=True) as connection:
        [database] = connection.execute("SELECT current_database()").fetchone() or ("",)
        connection.execute(f"ALTER DATABASE \"{database}\" SET lock_timeout = '2s'".encode())
    threads = [threading.Thread(target=write, args=[index]) for index in range(2)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: failed or min(written) > 5, 30, "results")
        assert not failed
        told = retain(run, "--results", "--yes")
        before = sum(written)
        wait_until(lambda: sum(written) > before + 10, 30, "more results")
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)

    assert failed == []
    assert {f"dropped the partition {month}" for month in months} <= set(told)
    assert "deleted 60 analyses and 60 recordings" in told
    assert max(longest) < 3.0
    assert counts(store_url)["segments"] == 4 * sum(written)


def test_a_recording_that_is_being_claimed_is_left_for_the_next_time(
    store: Store, store_url: str, model: ModelFacts, run: Run
) -> None:
    for key in ("a.wav", "b.wav"):
        analysis_id, _ = answered(store, model, key)
        make_older(store_url, analysis_id, 20)
    with psycopg.connect(store_url) as claiming:
        claiming.execute("UPDATE recordings SET updated_at = now() WHERE key = 'a.wav'")
        assert "deleted 1 analyses and 1 recordings" in retain(run, "--results", "--yes")
    assert rows(store_url, "SELECT key FROM recordings") == [("a.wav",)]
    assert "deleted 1 analyses and 1 recordings" in retain(run, "--results", "--yes")


def test_many_results_are_deleted_in_batches(
    store: Store, store_url: str, model: ModelFacts, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tussis.shared.store.retention.BATCH", 3)
    for number in range(8):
        analysis_id, _ = answered(store, model, f"{number}.wav")
        make_older(store_url, analysis_id, 20)
    told = retain(run, "--results", "--yes")
    assert "deleted 32 segments of segments_default" in told
    assert "deleted 8 analyses and 8 recordings" in told
    assert counts(store_url) == dict.fromkeys(TABLES, 0)
