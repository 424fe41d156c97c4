"""What a claim and a written result cost. The numbers are reported (``-rP`` shows them); the limits are generous, since
they are there to notice a lost index or a row-by-row insert on a busy machine, not to measure."""

from __future__ import annotations

import statistics
import time

import psycopg
from sqlalchemy import event

from tests.support.store import a_claim, a_job, a_result, claimed, model_facts
from tussis.shared.store.connection import connect_engine
from tussis.shared.store.repository import Store

ROUNDS = 30


def test_write_time_of_thirty_two_segments(store: Store, store_url: str, model_id: int) -> None:
    result = a_result(32)
    claims, writes, cpu = [], [], []
    for number in range(ROUNDS):
        request = a_claim(a_job(key=f"{number}.wav"), model_id)
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
    # Ten times what two quiet cores take.
    assert medians["cpu"] < 60


def test_all_segments_travel_in_one_statement(store_url: str) -> None:
    """Whatever their number, the statements of a completion are the same few."""
    engine = connect_engine(store_url)
    statements: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        statements.append(statement)

    with Store(engine) as store:
        model_id = store.register_model(model_facts())
        numbers = set()
        for count in (1, 32):
            claim = claimed(store.claim(a_claim(a_job(key=f"{count}.wav"), model_id)))
            statements.clear()
            store.complete(claim, a_result(count))
            numbers.add(len(statements))
            assert sum("INSERT INTO segments" in statement for statement in statements) == 1
    assert numbers == {5}
