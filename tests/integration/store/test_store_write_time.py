"""The time of a claim and of a written result.

``-rP`` shows the numbers. The limits are generous: they detect a lost index or a row-by-row insert on a busy machine,
and do not measure.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import psycopg
import pytest

from tests.support.store import a_claim, a_job, a_result, claimed
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store

ROUNDS = 30


def test_write_time_of_thirty_two_segments(store: Store, store_url: str, model: ModelFacts) -> None:
    result = a_result(32)
    claims, writes, cpu = [], [], []
    for number in range(ROUNDS):
        request = a_claim(a_job(key=f"{number}.wav"), model)
        worked = time.thread_time()
        began = time.perf_counter()
        claim = claimed(store.claim(request))
        claims.append(time.perf_counter() - began)
        began = time.perf_counter()
        assert store.complete(claim, result)
        writes.append(time.perf_counter() - began)
        cpu.append(time.thread_time() - worked)

    with psycopg.connect(store_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE bare (n int)")
        commits = []
        for number in range(ROUNDS):
            began = time.perf_counter()
            connection.execute("INSERT INTO bare VALUES (%s)", [number])
            commits.append(time.perf_counter() - began)

    medians = {
        name: 1000 * statistics.median(values)
        for name, values in (("claim", claims), ("complete", writes), ("cpu", cpu), ("bare commit", commits))
    }
    print(", ".join(f"{name} {value:.2f} ms" for name, value in medians.items()))  # noqa: T201 - reported on purpose
    # Ten times the value of two quiet cores.
    assert medians["cpu"] < 60


@pytest.mark.parametrize("count", [1, 32])
def test_a_claim_and_a_result_are_a_statement_each(
    store: Store, model: ModelFacts, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For any number of segments. Each statement is its own transaction; the server receives nothing else."""
    statements: list[str] = []
    execute: Any = psycopg.Cursor.execute

    def noted(cursor: Any, query: bytes, *rest: Any, **named: Any) -> Any:
        assert cursor.connection.autocommit
        statements.append(query.decode())
        return execute(cursor, query, *rest, **named)

    monkeypatch.setattr(psycopg.Cursor, "execute", noted)
    # A new recording, then a new analysis of it.
    for job in (a_job(), a_job(again=True)):
        claim = claimed(store.claim(a_claim(job, model)))
        assert claim.number == 1
        assert store.complete(claim, a_result(count))
    assert ["INSERT INTO segments" in statement for statement in statements] == [False, True] * 2
