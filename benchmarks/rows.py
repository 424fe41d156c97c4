"""Queries and results in a database with many rows: the documented queries, the lists, and the rate of new results."""

from __future__ import annotations

import re
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.row_data import MODELS, fill
from benchmarks.store import request_for, result_of
from tussis.shared.states import AnalysisState
from tussis.shared.store import migrate
from tussis.shared.store.drift import Period
from tussis.shared.store.partitions import make_partitions
from tussis.shared.store.records import Claimed, ResultFilter
from tussis.shared.store.repository import Store
from tussis.worker.bench.environment import bench_environment
from tussis.worker.bench.measurements import Cell, Column, Measurements, TargetCheck, hardware

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "query.md"
#: The largest median in milliseconds of a query on a recording, a page or a day, and of one on everything.
NARROW_TARGET, WIDE_TARGET = 200.0, 5_000.0
#: The least rate of results, in parts of the rate in an empty database.
RATE_TARGET = 0.9
#: A query is measured once more only while it took less than this together, in seconds.
_ENOUGH_S = 15.0
_TIMEOUT_S = 180
#: Results of one round, in each database.
_RESULTS = 300
_SEGMENTS = 32

_RECORDING = "bucket = 'recordings' AND key = 'south/4.wav'"
#: Queries of one recording or one day, beside those of the document.
NARROW = {
    "the answer of a recording": f"SELECT * FROM current WHERE {_RECORDING}",
    "the segments of a recording": f"SELECT * FROM current_segments WHERE {_RECORDING}",
    "the cough events of a recording": "SELECT events.* FROM current JOIN events USING (analysis_id) "
    f"WHERE {_RECORDING}",
    "the coughs of a day": "SELECT count(*), sum(events) FROM analyses WHERE decision "
    "AND created_at >= now() - interval '31 days' AND created_at < now() - interval '30 days'",
}


@dataclass(frozen=True, slots=True)
class Timed:
    """The milliseconds of each run of one query; none: it took too long."""

    what: str
    narrow: bool
    ms: tuple[float, ...]
    rows: int
    plan: str

    @property
    def median(self) -> float:
        """The median, or the time limit if it took too long."""
        return statistics.median(self.ms) if self.ms else _TIMEOUT_S * 1000.0


def measure(*, rows: int, rounds: int, command: str, say: Callable[[str], None]) -> Measurements:
    """Fill a new embedded PostgreSQL with its default settings, and measure. Raises the errors of the servers."""
    with bench_environment() as environment:
        url = environment.servers.endpoints.database_url
        with _empty_database(url) as empty_url:
            for each in (url, empty_url):
                make_partitions(each)
                with Store.connect(each) as store:
                    for model in MODELS:
                        store.register_model(model)
            began = time.monotonic()
            analyses = fill(url, rows, say)
            filled_s = time.monotonic() - began
            with psycopg.connect(url) as connection:
                size, count = connection.execute(
                    "SELECT pg_database_size(current_database()), (SELECT count(*) FROM segments)"
                ).fetchone() or (0, 0)
            # Before the queries, so that both databases are in the same state of the caches.
            say("results")
            rates = _rates(url, empty_url, rounds)
            timed = [_timed(url, what, sql, narrow=True, rounds=rounds, say=say) for what, sql in NARROW.items()]
            timed += _lists(url, rounds)
            timed += [
                _timed(url, what, sql, narrow=_narrow(sql), rounds=rounds, say=say)
                for what, sql in documented().items()
            ]
    notes = (
        f"{count:,} segments of {analyses:,} analyses in 14 months, {size / 1e9:.1f} GB, filled in {filled_s:,.0f} s;"
        " default settings of PostgreSQL (128 MB of shared buffers).",
        f"Results: {_SEGMENTS} segments, a claim and a result each, one connection, {_RESULTS} in each database in"
        f" turns, {rounds} rounds.",
        "The plan names the tables that are read and how; segments_* are partitions.",
    )
    return _measurements(timed, rates, rows, command, notes)


def documented() -> dict[str, str]:
    """The questions of ``docs/query.md`` and their SQL."""
    text = DOCUMENT.read_text(encoding="utf-8")
    found = re.findall(r"^### (\d+\. [^\n]+)\n(?:(?!^##).)*?```sql\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    return dict(found)


def _narrow(sql: str) -> bool:
    """Whether the query names one recording."""
    return re.search(r"\bkey = '", sql) is not None


@contextmanager
def _empty_database(url: str) -> Iterator[str]:
    """A second database, migrated, on the same server."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE empty TEMPLATE template0")
    empty_url = url.rsplit("/", 1)[0] + "/empty"
    migrate.upgrade(empty_url)
    yield empty_url


def _timed(url: str, what: str, sql: str, *, narrow: bool, rounds: int, say: Callable[[str], None]) -> Timed:
    say(what)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"SET statement_timeout = '{_TIMEOUT_S}s'".encode())
        plan = connection.execute(f"EXPLAIN (FORMAT JSON) {sql}".encode()).fetchone()
        assert plan is not None
        ms: list[float] = []
        count = 0
        try:
            connection.execute(sql.encode()).fetchall()  # fills the caches
            while len(ms) < rounds and (not ms or sum(ms) < _ENOUGH_S * 1000):
                began = time.perf_counter()
                count = len(connection.execute(sql.encode()).fetchall())
                ms.append((time.perf_counter() - began) * 1000)
        except psycopg.errors.QueryCanceled:
            ms = []
    return Timed(what, narrow, tuple(ms), count, _reads(plan[0][0]["Plan"]))


def _reads(plan: dict[str, Any]) -> str:
    """How the plan reads each table, without repetitions."""
    found: dict[str, None] = {}

    def visit(node: dict[str, Any]) -> None:
        if (table := node.get("Relation Name")) is not None:
            kind = node["Node Type"].replace(" Scan", "").replace("Bitmap Heap", "Bitmap").lower()
            found[f"{kind} {re.sub(r'^segments_.*', 'segments_*', table)}"] = None
        for child in node.get("Plans", ()):
            visit(child)

    visit(plan)
    return ", ".join(found)


def _lists(url: str, rounds: int) -> list[Timed]:
    """The lists of the command line: a page, and one with the segments of each."""
    newest = ResultFilter(limit=50)
    under = ResultFilter(limit=50, prefix="s3://recordings/north/", state=AnalysisState.SUCCEEDED)
    now = datetime.now(UTC)
    week = now - timedelta(days=7)
    with Store.connect(url) as store:
        calls: dict[str, Callable[[], int]] = {
            "tussis results": lambda: len(list(store.results(newest))),
            "tussis results --prefix": lambda: len(list(store.results(under))),
            "tussis results --segments": lambda: sum(
                map(len, store.segments_of_each([each.id for each in islice(store.results(newest), 50)]).values())
            ),
            "tussis status": lambda: store.counts().succeeded,
            "tussis drift": lambda: len(store.drift(Period(week, now), Period(week - 4 * (now - week), week))),
        }
        found = []
        for what, call in calls.items():
            call()
            ms, count = [], 0
            for _ in range(rounds):
                began = time.perf_counter()
                count = call()
                ms.append((time.perf_counter() - began) * 1000)
            found.append(Timed(what, what not in ("tussis status", "tussis drift"), tuple(ms), count, ""))
        return found


def _rates(url: str, empty_url: str, rounds: int) -> tuple[float, float]:
    """Results a second: in the filled database, and in the empty one. Medians of rounds in turns."""
    result = result_of(_SEGMENTS)
    found: dict[str, list[float]] = {url: [], empty_url: []}
    with Store.connect(url, direct=True) as filled, Store.connect(empty_url, direct=True) as empty:
        stores = {url: filled, empty_url: empty}
        for number in range(rounds + 1):
            order = list(stores.items())
            for each, store in order if number % 2 else reversed(order):
                began = time.perf_counter()
                for _ in range(_RESULTS):
                    claim = store.claim(request_for(MODELS[1], f"new/{uuid.uuid4()}.wav", _SEGMENTS))
                    assert isinstance(claim, Claimed), claim
                    assert store.complete(claim, result)
                if number:  # the first round prepares the statements
                    found[each].append(_RESULTS / (time.perf_counter() - began))
    rate = partial(map, statistics.median)
    filled_rate, empty_rate = rate(found.values())
    return filled_rate, empty_rate


def _measurements(
    timed: list[Timed], rates: tuple[float, float], rows: int, command: str, notes: tuple[str, ...]
) -> Measurements:
    table: list[tuple[Cell, ...]] = [
        (each.what, "narrow" if each.narrow else "all", each.median if each.ms else None, each.rows, each.plan)
        for each in timed
    ]
    verdicts = [
        TargetCheck(f"ms: {each.what}", each.median, NARROW_TARGET if each.narrow else WIDE_TARGET, at_most=True)
        for each in timed
    ]
    filled, empty = rates
    notes = (*notes, f"Results a second: {filled:,.0f} in this database, {empty:,.0f} in an empty one.")
    verdicts.append(TargetCheck("results a second, of those in an empty database", filled / empty, RATE_TARGET))
    return Measurements(
        title=f"Queries over {rows:,} segments",
        command=command,
        columns=(Column("query"), Column("reads"), Column("median", "ms", 1), Column("rows", "", 0), Column("plan")),
        rows=tuple(table),
        hardware=hardware(),
        notes=notes,
        verdicts=tuple(verdicts),
    )
