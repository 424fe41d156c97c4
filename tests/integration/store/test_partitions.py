"""The monthly partitions of ``segments``: made ahead, also twice at once, also over rows that are already there."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import make_url

from tests.support.months import month_name, segments_in
from tests.support.store import a_claim, a_job, a_result, claimed, execute, rows
from tests.support.waiting import wait_until
from tussis.shared.errors import DatabaseUnavailable, SchemaMismatch
from tussis.shared.store import owner
from tussis.shared.store.partitions import MONTHS_AHEAD, make_partitions
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store

PARTITIONS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'segments'::regclass ORDER BY 1"
CODE = "import sys; from tussis.shared.store.partitions import make_partitions; make_partitions(sys.argv[1])"


def months_ahead(url: str) -> list[str]:
    return sorted([month_name(url, -number) for number in range(MONTHS_AHEAD + 1)] + ["segments_default"])


def analysed(store: Store, model: ModelFacts, key: str, segments: int = 4) -> int:
    """Store a result; returns the id of its analysis."""
    claim = claimed(store.claim(a_claim(a_job(key=key), model)))
    assert store.complete(claim, a_result(segments))
    return claim.analysis_id


def test_the_months_ahead_are_made_once(store_url: str) -> None:
    made = make_partitions(store_url)
    assert [each.name for each in made] == [month_name(store_url, -number) for number in range(3, MONTHS_AHEAD + 1)]
    assert {each.rows for each in made} == {0}
    assert [name for (name,) in rows(store_url, PARTITIONS)] == months_ahead(store_url)
    assert make_partitions(store_url) == []


def test_a_partition_is_like_those_of_the_migration(store_url: str) -> None:
    make_partitions(store_url)
    catalogue = (
        "SELECT conname, contype, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::text::regclass "
        "ORDER BY 1"
    )
    columns = (
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull, col_description(attrelid, attnum) "
        "FROM pg_attribute WHERE attrelid = %s::text::regclass AND attnum > 0 ORDER BY attnum"
    )
    bound = "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = %s"
    first, last = month_name(store_url, 0), month_name(store_url, -MONTHS_AHEAD)

    def told(query: str, name: str) -> str:
        return repr(rows(store_url, query, name)).replace(name, "it")

    assert told(catalogue, first) == told(catalogue, last)
    assert told(columns, first) == told(columns, last)
    # One ends where the next one begins.
    before = month_name(store_url, 1 - MONTHS_AHEAD)
    [(one,)], [(next_one,)] = rows(store_url, bound, before), rows(store_url, bound, last)
    assert one.split(" TO ")[1] == next_one.split(" TO ")[0].removeprefix("FOR VALUES FROM ")


def test_two_processes_at_once_make_each_partition_once(store_url: str) -> None:
    both = [
        subprocess.Popen([sys.executable, "-c", CODE, store_url], stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in both]
    assert ends == [("", 0), ("", 0)]
    assert [name for (name,) in rows(store_url, PARTITIONS)] == months_ahead(store_url)


def test_the_rows_of_the_month_move_out_of_the_default(store: Store, store_url: str, model: ModelFacts) -> None:
    this_month = month_name(store_url, 0)
    execute(store_url, f"DROP TABLE {this_month}")
    ids = [analysed(store, model, f"{number}.wav") for number in range(3)]
    old = analysed(store, model, "old.wav")
    execute(store_url, "UPDATE segments SET analysis_created_at = '2001-01-01+00' WHERE analysis_id = %s", old)
    assert segments_in(store_url, "segments_default") == 16
    before = rows(store_url, "SELECT * FROM segments ORDER BY 1, 2, 3")

    made = {each.name: each.rows for each in make_partitions(store_url)}

    assert made[this_month] == 12
    assert rows(store_url, "SELECT * FROM segments ORDER BY 1, 2, 3") == before
    assert segments_in(store_url, this_month) == 12
    assert segments_in(store_url, "segments_default") == 4
    assert [len(store.segments_of(number)) for number in ids] == [4, 4, 4]


def test_results_continue_while_their_month_moves(store: Store, store_url: str, model: ModelFacts) -> None:
    """Given results that are being written to the default, its month gets a partition, and no row is lost."""
    this_month = month_name(store_url, 0)
    execute(store_url, f"DROP TABLE {this_month}")
    stop = threading.Event()
    written: list[int] = []

    def write(name: str) -> None:
        number = 0
        while not stop.is_set():
            written.append(analysed(store, model, f"{name}/{number}.wav"))
            number += 1

    threads = [threading.Thread(target=write, args=[name]) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(written) > 20, 30, "results in the default")
        made = {each.name: each.rows for each in make_partitions(store_url)}
        count = len(written)
        wait_until(lambda: len(written) > count + 20, 30, "results in the partition")
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)

    assert made[this_month] >= 4 * 20
    assert segments_in(store_url, "segments_default") == 0
    assert segments_in(store_url, this_month) == 4 * len(written)
    assert rows(store_url, "SELECT count(*) FROM analyses WHERE state = 'succeeded'") == [(len(written),)]


def test_a_reader_is_not_waited_for_long(
    store: Store, store_url: str, model: ModelFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a query of an analyst runs, the change gives way to results, and ends with an error."""
    monkeypatch.setattr(owner, "PATIENCE_S", 2.0)
    slow: list[float] = []
    with psycopg.connect(store_url) as reader:
        reader.execute("SELECT count(*) FROM segments")
        failed: list[BaseException] = []

        def make() -> None:
            try:
                make_partitions(store_url)
            except DatabaseUnavailable as error:
                failed.append(error)

        thread = threading.Thread(target=make)
        thread.start()
        while thread.is_alive():
            began = time.monotonic()
            analysed(store, model, f"{uuid.uuid4()}.wav")
            slow.append(time.monotonic() - began)
        thread.join()
    assert len(failed) == 1
    assert "lock timeout" in str(failed[0])
    # 0.3 s of waiting behind the change, and the rest is the load of the machine.
    assert max(slow) < 3.0
    assert len(make_partitions(store_url)) == MONTHS_AHEAD - 2


def test_a_table_of_the_name_is_refused(store_url: str) -> None:
    name = month_name(store_url, -5)
    execute(store_url, f"CREATE TABLE {name} (theirs text)")
    with pytest.raises(SchemaMismatch, match=f"{name} that is no partition of segments"):
        make_partitions(store_url)


@pytest.fixture
def worker_url(store_url: str) -> Iterator[str]:
    """The database for a role that can read and write rows and nothing else."""
    role = f"worker_{uuid.uuid4().hex[:12]}"
    execute(store_url, f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    execute(store_url, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
    try:
        yield make_url(store_url).set(username=role, password="secret").render_as_string(hide_password=False)
    finally:
        execute(store_url, f"DROP OWNED BY {role}")
        execute(store_url, f"DROP ROLE {role}")


def test_a_worker_needs_no_ddl(store_url: str, worker_url: str) -> None:
    make_partitions(store_url)
    model = ModelFacts(
        name="cough", version="1", sha256="a" * 64, profile="documented", threshold=0.61, provenance="made for a test"
    )
    with Store.connect(worker_url) as store:
        store.verify_schema()
        store.register_model(model)
        # The partition was made after the rights were granted: the rights on the table are sufficient.
        analysed(store, model, "a.wav")
        with pytest.raises(psycopg.errors.InsufficientPrivilege), psycopg.connect(worker_url) as connection:
            connection.execute(
                "CREATE TABLE segments_2001_01 PARTITION OF segments FOR VALUES FROM ('2001-01-01') TO ('2001-02-01')"
            )
        # After the last partition, the default takes the rows.
        for (name,) in rows(store_url, PARTITIONS):
            if name != "segments_default":
                execute(store_url, f"DROP TABLE {name}")
        after = analysed(store, model, "b.wav")
        assert len(store.segments_of(after)) == 4
    assert segments_in(store_url, "segments_default") == 4
