"""The software of results and failures: one row for each combination."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg

from tests.support.store import a_claim, a_job, a_result, claimed, rows, some_software
from tussis.shared.store.records import Claimed, ModelFacts
from tussis.shared.store.repository import Store

COUNT = "SELECT count(*) FROM software"


def claim(store: Store, model: ModelFacts, key: str) -> Claimed:
    return claimed(store.claim(a_claim(a_job(key=key), model)))


def test_results_and_failures_of_the_same_software_share_a_row(store: Store, store_url: str, model: ModelFacts) -> None:
    here, other = some_software(), some_software(onnxruntime_version="1.22.0")
    one, two, three, four = (claim(store, model, key) for key in "abcd")

    assert store.complete(one, a_result(software=here))
    assert store.complete(two, a_result(software=here))
    assert store.fail(three, "not_audio", "a picture", None, here)
    assert store.complete(four, a_result(software=other))

    found = [store.analysis(claim.analysis_id) for claim in (one, two, three, four)]
    assert [analysis.software for analysis in found if analysis] == [here, here, here, other]
    assert rows(store_url, COUNT) == [(2,)]
    # No number of the sequence is spent on a row that is known.
    assert rows(store_url, "SELECT max(id) FROM software") == [(2,)]


def test_a_failure_can_be_the_first_of_its_software(store: Store, store_url: str, model: ModelFacts) -> None:
    failed = claim(store, model, "a")
    assert store.fail(failed, "not_audio", "a picture", None, some_software())
    found = store.analysis(failed.analysis_id)
    assert found is not None
    assert found.software == some_software()


def test_without_software_the_result_names_none(store: Store, store_url: str, model: ModelFacts) -> None:
    one = claim(store, model, "a")
    assert store.complete(one, a_result())
    found = store.analysis(one.analysis_id)
    assert found is not None
    assert found.software is None
    assert rows(store_url, COUNT) == [(0,)]


def test_a_superseded_attempt_adds_no_software(store: Store, store_url: str, model: ModelFacts) -> None:
    job = a_job()
    first = claimed(store.claim(a_claim(job, model)))
    claimed(store.claim(a_claim(job, model)))

    assert not store.complete(first, a_result(software=some_software()))
    assert not store.fail(first, "not_audio", "late", None, some_software())

    assert rows(store_url, "SELECT software_id FROM analyses") == [(None,)]


def test_a_reopened_failure_forgets_its_software(store: Store, store_url: str, model: ModelFacts) -> None:
    first = claim(store, model, "a")
    store.fail(first, "object_missing", "gone", None, some_software())
    again = a_job(key="a", enqueued_at=1_767_225_700.0)

    claimed(store.claim(a_claim(again, model)))

    assert rows(store_url, "SELECT software_id FROM analyses") == [(None,)]


def test_first_results_at_once_make_one_row(store: Store, store_url: str, model: ModelFacts) -> None:
    claims = [claim(store, model, f"{number}") for number in range(6)]
    start = threading.Barrier(len(claims))

    def complete(one: Claimed) -> bool:
        start.wait(30)
        return store.complete(one, a_result(software=some_software()))

    with ThreadPoolExecutor(len(claims)) as pool:
        assert all(pool.map(complete, claims))
    assert rows(store_url, COUNT) == [(1,)]
    assert rows(store_url, "SELECT count(*) FROM analyses JOIN software ON software.id = software_id") == [(6,)]


def test_a_result_waits_for_the_same_software_of_another_transaction(
    store: Store, store_url: str, model: ModelFacts
) -> None:
    """Given a transaction that has inserted the row and not committed, then a result waits for it and takes its row."""
    waiting = claim(store, model, "a")
    used = some_software()
    with psycopg.connect(store_url) as other, ThreadPoolExecutor(1) as pool:
        inserted = other.execute(
            "INSERT INTO software (tussis_version, onnxruntime_version, torch_version, torchaudio_version, "
            "decoder_library, provider, graph, processor) VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
            [
                used.tussis_version,
                used.onnxruntime_version,
                used.torch_version,
                used.torchaudio_version,
                used.decoder_library,
                used.provider,
                used.graph,
                used.processor,
            ],
        ).fetchone()
        ending = pool.submit(store.complete, waiting, a_result(software=used))
        while rows(store_url, "SELECT count(*) FROM pg_locks WHERE NOT granted") == [(0,)]:
            assert not ending.done()
        other.commit()
        assert ending.result(30)
    assert rows(store_url, "SELECT software_id FROM analyses") == [inserted]
