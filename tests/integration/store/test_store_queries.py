"""Reading results back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest

from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, execute, model_facts, refused, rows
from tussis.shared.errors import InvalidUri
from tussis.shared.states import AnalysisState, AttemptOutcome
from tussis.shared.store import queries
from tussis.shared.store.records import ResultFilter, StateCounts
from tussis.shared.store.repository import Store

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def filled(shared_store_url: str) -> Iterator[Store]:
    """Six analyses, one a minute from T0: cough, no cough, failed, discarded, running, waiting."""
    with Store.connect(shared_store_url) as store:
        fill(store, shared_store_url)
        yield store


def fill(store: Store, store_url: str) -> None:
    model = model_facts()
    for key, probability in (("a/1.wav", 0.9), ("a/2.wav", 0.1)):
        store.complete(claimed(store.claim(a_claim(a_job(key=key), model))), a_result(3, probability))
    store.fail(claimed(store.claim(a_claim(a_job(key="b/3.wav"), model))), "not_audio", "a picture")
    discarded = refused(store.refuse(a_refusal(a_job(key="b_/4.wav"))))
    store.discard([discarded])
    store.claim(a_claim(a_job(key="b%/5.wav"), model))
    waiting = claimed(store.claim(a_claim(a_job(bucket="others", key="a/6.wav"), model)))
    store.release(waiting, AttemptOutcome.TRANSIENT, "storage_unavailable", "503")
    # Segments have the analysis' creation time as well: change both.
    execute(store_url, "UPDATE analyses SET created_at = %s + (id - 1) * interval '1 min'", T0)
    execute(
        store_url,
        "UPDATE segments SET analysis_created_at = created_at FROM analyses WHERE analyses.id = analysis_id",
    )


def keys(store: Store, **wanted: Any) -> list[str]:
    return [analysis.key for analysis in store.results(ResultFilter(**wanted))]


def test_newest_first(filled: Store) -> None:
    assert keys(filled) == ["a/6.wav", "b%/5.wav", "b_/4.wav", "b/3.wav", "a/2.wav", "a/1.wav"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"decision": True}, ["a/1.wav"]),
        ({"decision": False}, ["a/2.wav"]),
        ({"state": AnalysisState.SUCCEEDED}, ["a/2.wav", "a/1.wav"]),
        ({"state": AnalysisState.FAILED}, ["b/3.wav"]),
        ({"state": AnalysisState.DISCARDED}, ["b_/4.wav"]),
        ({"state": AnalysisState.RUNNING}, ["b%/5.wav"]),
        ({"state": AnalysisState.WAITING}, ["a/6.wav"]),
        ({"since": T0 + timedelta(minutes=4)}, ["a/6.wav", "b%/5.wav"]),
        ({"until": T0 + timedelta(minutes=1)}, ["a/1.wav"]),
        ({"prefix": "s3://others"}, ["a/6.wav"]),
        ({"prefix": "s3://recordings/a/"}, ["a/2.wav", "a/1.wav"]),
        ({"prefix": "s3://recordings/b_"}, ["b_/4.wav"]),
        ({"prefix": "s3://recordings/b%"}, ["b%/5.wav"]),
        ({"prefix": "s3://recordings/", "limit": 2}, ["b%/5.wav", "b_/4.wav"]),
        ({"limit": 0}, []),
        ({"decision": True, "prefix": "s3://others/"}, []),
    ],
    ids=str,
)
def test_filters(filled: Store, wanted: dict[str, object], expected: list[str]) -> None:
    assert keys(filled, **wanted) == expected


def test_a_prefix_that_is_none_is_refused(store: Store) -> None:
    with pytest.raises(InvalidUri, match="s3://"):
        next(store.results(ResultFilter(prefix="recordings/a")))


@pytest.mark.parametrize("limit", [None, 1, 4, 5, 6])
def test_pages_join_without_a_gap(filled: Store, monkeypatch: pytest.MonkeyPatch, limit: int | None) -> None:
    whole = keys(filled)
    monkeypatch.setattr(queries, "PAGE", 2)
    assert keys(filled, limit=limit) == whole[:limit]


def test_rows_that_appear_meanwhile_shift_no_page(
    store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, store_url)
    whole = keys(store)
    monkeypatch.setattr(queries, "PAGE", 2)
    listing = store.results(ResultFilter())
    first = [analysis.key for analysis in islice(listing, 2)]
    store.claim(a_claim(a_job(key="new.wav"), model_facts()))
    assert first + [analysis.key for analysis in listing] == whole


def test_a_prefix_is_looked_up_in_the_index(store_url: str) -> None:
    # Of ten thousand keys a hundred match. A sequential scan would be cheaper on a few rows.
    execute(
        store_url,
        "INSERT INTO recordings (bucket, key, etag) "
        "SELECT 'many', 'site' || n % 100 || '/' || n || '.wav', 'e' FROM generate_series(1, 10000) n",
    )
    execute(store_url, "ANALYZE recordings")
    plan = "\n".join(
        line
        for (line,) in rows(
            store_url,
            "EXPLAIN SELECT * FROM recordings WHERE bucket = %s AND key LIKE %s",
            "many",
            "site7/%",
        )
    )
    assert "recordings_bucket_key_etag_key" in plan
    assert "key >= 'site7/'" in plan


def test_counts(filled: Store) -> None:
    assert filled.counts() == StateCounts(
        cough=1, no_cough=1, failures={"not_audio": 1}, discarded=1, running=1, waiting=1, dead_letters=0
    )
    assert filled.counts().succeeded == 2
    assert filled.counts().failed == 1


def test_counts_of_an_empty_store(store: Store) -> None:
    assert store.counts() == StateCounts(
        cough=0, no_cough=0, failures={}, discarded=0, running=0, waiting=0, dead_letters=0
    )
    assert list(store.results(ResultFilter())) == []


def test_segments_of_several_analyses_in_one_query(filled: Store) -> None:
    ids = [analysis.id for analysis in filled.results(ResultFilter())]
    found = filled.segments_of_each(ids)
    assert {analysis_id: len(segments) for analysis_id, segments in found.items()} == {1: 3, 2: 3}
    assert filled.segments_of(3) == ()
    assert [segment.index for segment in found[1]] == [0, 1, 2]
