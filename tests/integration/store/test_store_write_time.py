"""The time of a claim and of a written result.

``-rP`` shows the numbers. The limits are generous: they detect a lost index or a row-by-row insert on a busy machine,
and do not measure.
"""

from __future__ import annotations

import itertools
import statistics
import time
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from tests.support.store import a_claim, a_job, a_result, claimed
from tussis.shared.store import claims, endings
from tussis.shared.store.connection import PREPARE_AFTER, connect_engine
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


def test_recordings_of_all_sizes_share_the_prepared_statements(store_url: str, model: ModelFacts) -> None:
    """A prepared statement is for one combination of types, so the types must not follow from the values."""
    engine = connect_engine(store_url, direct=True)
    runs = 2 * PREPARE_AFTER
    for number, scale in itertools.product(range(runs), (1, 10**5, 10**10)):
        job = a_job(key=f"{number}-{scale}.wav", metadata={"n": scale} if number % 2 else {})
        claim = claims.claim_first(engine, a_claim(job, model, size_bytes=None if number == 1 else scale))
        assert claim is not None
        result = replace(a_result(), size_bytes=scale, rate_hz=min(scale, 10**6), segments_total=min(scale, 10**6) + 3)
        if number % 2:
            result = replace(result, events=())
        assert endings.complete(engine, claim, result)
    with engine.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%%INSERT INTO %%'"
        )
        assert found.scalar_one() == 2
    engine.dispose()
