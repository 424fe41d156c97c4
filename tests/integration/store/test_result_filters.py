"""The filter of results, compared with the same filter in Python."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import make_url

from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, execute, label, model_facts, refused, rows
from tussis.shared.states import AnalysisState
from tussis.shared.store import queries
from tussis.shared.store.records import Analysis, ResultFilter
from tussis.shared.store.repository import Store
from tussis.shared.store.result_filters import conditions
from tussis.shared.store.tables.analyses import analyses

_DIALECT = make_url("postgresql+psycopg://").get_dialect()()
T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
MODELS = [
    model_facts(name=name, version=version, sha256=digit * 64)
    for name, version, digit in (("cough", "1", "a"), ("cough", "2", "b"), ("cough-b", "1", "c"))
]
METADATA: list[dict[str, Any]] = [
    {},
    {"site": "north"},
    {"site": "north", "ward": 3},
    {"site": "south", "ward": 3.0, "ok": True, "none": None},
    {"site": "", "deep": {"a": [1, 2]}, "a=b": "ä %s :x"},
]


@dataclass(frozen=True)
class Filled:
    """A store, all its analyses (newest first), and the jobs that each answers."""

    store: Store
    analyses: list[Analysis]
    jobs: dict[int, set[str]]


@pytest.fixture(scope="module")
def filled(shared_store_url: str) -> Iterator[Filled]:
    """120 analyses of 20 recordings, with times that are often equal."""
    with Store.connect(shared_store_url) as store:
        draw = random.Random(12)
        for number in range(120):
            recording = draw.randrange(20)
            job = a_job(
                key=f"{'ab'[recording % 2]}/{recording}.wav",
                metadata=METADATA[recording % len(METADATA)],
                again=draw.random() < 0.5,
            )
            match draw.choice(
                ["cough", "no cough", "failed", "discarded", "cancelled", "running", "not served", "no version"]
            ):
                case "cancelled":
                    store.cancel([replace(job, etag="e1")], "an operator")
                case "discarded":
                    store.discard([refused(store.refuse(a_refusal(job, etag="e1")))])
                case "not served":
                    store.refuse(a_refusal(job, etag="e1", model_requested=f"other@{number % 2}"))
                case "no version":
                    store.refuse(a_refusal(job, etag="e1", model_requested="cough"))
                case kind:
                    model = draw.choice(MODELS)
                    answer = store.claim(a_claim(replace(job, model=label(model)), model, lease_s=60))
                    if not hasattr(answer, "token"):
                        continue  # it has its answer already, or it is running
                    if kind == "failed":
                        store.fail(claimed(answer), "not_audio", "a picture")
                    elif kind != "running":
                        store.complete(claimed(answer), a_result(2, 0.9 if kind == "cough" else 0.1))
        # The foreign key of the segments has the time as well.
        execute(shared_store_url, "DELETE FROM segments")
        execute(shared_store_url, "UPDATE analyses SET created_at = %s + id * 7 %% 30 * interval '1 min'", T0)
        jobs: dict[int, set[str]] = {}
        for analysis_id, job_id in rows(shared_store_url, "SELECT analysis_id, job_id::text FROM jobs"):
            jobs.setdefault(analysis_id, set()).add(job_id)
        found = list(store.results(ResultFilter()))
        assert {analysis.state for analysis in found} == set(AnalysisState) - {AnalysisState.WAITING}
        yield Filled(store, found, jobs)


def as_text(value: object) -> str | None:
    return value if isinstance(value, str) or value is None else json.dumps(value)


def expected(filled: Filled, wanted: ResultFilter) -> list[int]:
    """Return the ids of the matching analyses, newest first, computed without SQL."""

    def matches(analysis: Analysis) -> bool:
        name, _, version = (wanted.model or "").partition("@")
        label = analysis.model or ""
        return (
            (wanted.since is None or analysis.created_at >= wanted.since)
            and (wanted.until is None or analysis.created_at < wanted.until)
            and (wanted.prefix is None or analysis.uri.startswith(wanted.prefix))
            and (not name or label == wanted.model or (not version and label.split("@")[0] == name))
            and all(as_text(analysis.metadata.get(key)) == text for key, text in wanted.metadata.items())
            and (wanted.job_ids is None or bool(filled.jobs[analysis.id] & set(wanted.job_ids)))
        )

    found: list[Analysis] = []
    seen: set[tuple[str, str]] = set()
    for analysis in filled.analyses:
        if matches(analysis) and not (wanted.newest and (analysis.uri, analysis.etag) in seen):
            seen.add((analysis.uri, analysis.etag))
            found.append(analysis)
    return [
        analysis.id
        for analysis in found
        if (wanted.decision is None or analysis.decision is wanted.decision)
        and (wanted.state is None or analysis.state is wanted.state)
    ]


def found_ids(store: Store, wanted: ResultFilter) -> list[int]:
    return [analysis.id for analysis in store.results(wanted)]


TIMES = st.integers(-1, 31).map(lambda minutes: T0 + timedelta(minutes=minutes))
PAIRS = [
    *(("site", text) for text in ("north", "south", "", "west")),
    *(("ward", text) for text in ("3", "3.0", "4")),
    ("ok", "true"),
    ("none", "null"),
    ("deep", '{"a": [1, 2]}'),
    ("a=b", "ä %s :x"),
    ("missing", ""),
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.data())
def test_every_filter_selects_what_it_says(filled: Filled, data: st.DataObject) -> None:
    job_ids = sorted(job_id for ids in filled.jobs.values() for job_id in ids)
    wanted = data.draw(
        st.builds(
            ResultFilter,
            since=st.none() | TIMES,
            until=st.none() | TIMES,
            decision=st.none() | st.booleans(),
            state=st.none() | st.sampled_from(AnalysisState),
            prefix=st.none() | st.sampled_from(["s3://recordings/a/", "s3://recordings/b/1", "s3://recordings"]),
            model=st.none()
            | st.sampled_from(["cough", "cough@1", "cough@2", "cough-b", "other", "other@1", "cou", "cough@", "none"]),
            metadata=st.lists(st.sampled_from(PAIRS), max_size=2).map(dict),
            job_ids=st.none() | st.lists(st.sampled_from(job_ids), max_size=40),
            newest=st.booleans(),
        )
    )

    assert found_ids(filled.store, wanted) == expected(filled, wanted)


def test_the_newest_analyses_are_one_a_recording(filled: Filled) -> None:
    newest = list(filled.store.results(ResultFilter(newest=True)))

    assert len(newest) == len({(analysis.uri, analysis.etag) for analysis in newest})
    assert {analysis.uri for analysis in newest} == {analysis.uri for analysis in filled.analyses}
    assert len(newest) < len(filled.analyses)


@pytest.mark.parametrize("limit", [None, 1, 7])
def test_pages_of_the_newest_join_without_a_gap(
    filled: Filled, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    wanted = ResultFilter(newest=True, model="cough")
    whole = found_ids(filled.store, wanted)
    monkeypatch.setattr(queries, "PAGE", 3)

    assert found_ids(filled.store, replace(wanted, limit=limit)) == whole[:limit]


def test_an_older_decision_does_not_stand_in_for_a_newer_one(store: Store) -> None:
    for model, probability in zip(MODELS[:2], (0.9, 0.1), strict=True):
        store.complete(claimed(store.claim(a_claim(a_job(), model))), a_result(2, probability))

    assert found_ids(store, ResultFilter(newest=True, decision=True)) == []
    assert found_ids(store, ResultFilter(newest=True, decision=False)) == [2]
    assert found_ids(store, ResultFilter(newest=True, decision=True, model="cough@1")) == [1]


def test_jobs_that_share_an_analysis_find_it(store: Store) -> None:
    first, second, other = a_job(), a_job(), a_job(key="b.wav")
    for job in (first, second, other):
        store.refuse(a_refusal(job))

    assert found_ids(store, ResultFilter(job_ids=[first.job_id])) == [1]
    assert found_ids(store, ResultFilter(job_ids=[second.job_id, first.job_id])) == [1]
    assert found_ids(store, ResultFilter(job_ids=[other.job_id, first.job_id, a_job().job_id])) == [2, 1]
    assert found_ids(store, ResultFilter(job_ids=[a_job().job_id])) == []
    assert found_ids(store, ResultFilter(job_ids=[])) == []


def test_many_thousand_jobs_are_one_parameter(store: Store) -> None:
    """PostgreSQL has a limit of 65,535 parameters."""
    job = a_job()
    store.refuse(a_refusal(job))
    assert found_ids(store, ResultFilter(job_ids=[job.job_id] * 70_000)) == [1]


def test_the_newest_of_many_recordings_are_found_by_index(store: Store, store_url: str) -> None:
    """A page of the newest analyses must not sort or compare all analyses."""
    store.refuse(a_refusal(a_job()))
    execute(
        store_url,
        "INSERT INTO recordings (bucket, key, etag) SELECT 'many', n || '.wav', 'e' FROM generate_series(1, 20000) n",
    )
    execute(
        store_url,
        "INSERT INTO analyses (recording_id, profile, profile_overridden, coverage, forced_by, job_id, state, "
        "attempt_token, attempts, error_class, error_message, worker, device, enqueued_at, started_at, finished_at, "
        "created_at) "
        "SELECT recordings.id, profile, false, coverage, n, job_id, state, attempt_token, attempts, error_class, "
        "error_message, worker, device, enqueued_at, started_at, finished_at, "
        "analyses.created_at - recordings.id * n * interval '1 s' "
        "FROM analyses, generate_series(1, 3) n, recordings WHERE bucket = 'many'",
    )
    execute(store_url, "ANALYZE")
    statement = queries.flat_analyses().where(*conditions(ResultFilter(newest=True)))
    statement = statement.order_by(analyses.c.created_at.desc(), analyses.c.id.desc()).limit(50)
    compiled = statement.compile(dialect=_DIALECT, compile_kwargs={"literal_binds": True})
    with psycopg.connect(store_url) as connection:
        [(plan,)] = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {compiled}".encode()).fetchall()
    assert read_rows(plan[0]["Plan"]) < 2_000


def read_rows(node: dict[str, Any]) -> int:
    """Return the number of rows that the scans of a plan have read."""
    own = node["Actual Rows"] * node["Actual Loops"] if "Scan" in node["Node Type"] else 0
    return int(own) + sum(read_rows(child) for child in node.get("Plans", []))
