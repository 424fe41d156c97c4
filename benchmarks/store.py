"""The store: segment rows a second, and the time of a write beyond one fsync."""

from __future__ import annotations

import os
import statistics
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import LiteralString, TypeVar

import psutil
import psycopg

from benchmarks.quantiles import quantile
from tussis.shared.events import CoughEvent
from tussis.shared.messages import Job
from tussis.shared.store.records import BagScores, Claimed, ClaimRequest, ModelFacts, Result, SegmentScores
from tussis.shared.store.repository import Store
from tussis.shared.store.software import Software
from tussis.worker.bench.crew import Crew, Spent
from tussis.worker.bench.environment import BUCKET, bench_environment
from tussis.worker.bench.measurements import Cell, Column, Measurements, TargetCheck, hardware
from tussis.worker.embedded.postgres import Postgres

T = TypeVar("T")

#: Segment rows a second through :data:`CONNECTIONS` connections, with one transaction for each recording.
ROWS_TARGET = 20_000.0
#: The largest milliseconds of a write beyond one fsync.
BEYOND_TARGET = 3.0
CONNECTIONS = 4
#: Segments of a recording: the limit, of ten seconds, of two seconds.
SEGMENTS = (32, 20, 4)
#: Recordings in a round, and writes made one after the other.
_RECORDINGS, _QUICK_RECORDINGS = 1_500, 400
_SINGLE, _QUICK_SINGLE = 300, 100
#: Recordings before the first round, so that every connection has prepared its statements.
_WARM_UP = 20 * CONNECTIONS
#: Turns of the claims with and without the check for forgotten recordings, and what is done before each.
_TURNS = 5
_TRIGGER = "recordings_forgotten"
_FORGETTING: Mapping[str, Sequence[LiteralString]] = {
    "claim, without the check for forgotten recordings": [
        "TRUNCATE forgotten",
        f"ALTER TABLE recordings DISABLE TRIGGER {_TRIGGER}",
    ],
    "claim, nothing forgotten": [f"ALTER TABLE recordings ENABLE TRIGGER {_TRIGGER}"],
    "claim, 100,000 recordings forgotten": [
        "INSERT INTO forgotten (digest, kind) "
        "SELECT sha256(number::text::bytea), 'object' FROM generate_series(1, 100000) AS number",
        "ANALYZE forgotten",
    ],
    "claim, the same and a prefix": [
        "INSERT INTO forgotten (digest, kind, length) VALUES (sha256('a prefix'), 'prefix', 20)"
    ],
}
#: Bytes of a page of PostgreSQL's write-ahead log. The fsync is measured with one page.
_PAGE = 8192


@dataclass(frozen=True, slots=True)
class Rate:
    """One round through several connections."""

    recordings: int
    spent: Spent
    server_cpu_s: float
    """The CPU seconds of PostgreSQL."""


@dataclass(frozen=True, slots=True)
class Waits:
    """The seconds of each call of one operation, with no other operation at the same time."""

    what: str
    seconds: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        """The median in milliseconds."""
        return statistics.median(self.seconds) * 1000

    @property
    def p99_ms(self) -> float:
        """The 99th percentile in milliseconds."""
        return quantile(self.seconds, 0.99) * 1000


def measure(*, rounds: int, quick: bool, command: str) -> Measurements:
    """Measure claims and results as the worker writes them, on an embedded PostgreSQL with its default settings.

    PostgreSQL syncs every commit. Raises the errors of the servers.
    """
    recordings, single = (_QUICK_RECORDINGS, _QUICK_SINGLE) if quick else (_RECORDINGS, _SINGLE)
    with bench_environment() as environment:
        url = environment.servers.endpoints.database_url
        model = ModelFacts(
            name="bench",
            version="1",
            sha256="0" * 64,
            profile="documented",
            threshold=0.5,
            provenance="made for a measurement",
        )
        environment.store.register_model(model)
        rates = {
            (segments, claims): _rates(
                environment.store, environment.servers.postgres, url, model, segments, claims, recordings, rounds
            )
            for segments in SEGMENTS
            for claims in (False, True)
        }
        waits = _waits(environment.store, environment.servers.postgres, model, single)
        waits += _forgetting_waits(environment.store, url, model, single)
    return _measurements(rates, waits, rounds, command)


def request_for(model: ModelFacts, key: str, segments: int) -> ClaimRequest:
    """The request for a claim as a worker makes it, for a new recording."""
    job = Job(job_id=str(uuid.uuid4()), bucket=BUCKET, key=key, etag="0" * 32, enqueued_at=time.time())
    return ClaimRequest(
        job=job,
        etag="0" * 32,
        version_id=None,
        size_bytes=32_044 * segments,
        model=model,
        profile="documented",
        profile_overridden=False,
        threshold=0.5,
        worker="cpu@bench",
        device="cpu",
        max_attempts=3,
        exclusive=True,
        lease_s=30.0,
    )


def result_of(segments: int) -> Result:
    """A result as a worker writes it."""
    starts = tuple(0.5 * index for index in range(segments))
    return Result(
        size_bytes=32_044 * segments,
        duration_s=0.5 * (segments + 3),
        rate_hz=16_000,
        channels=1,
        codec="pcm_s16",
        container="wav",
        decoder="soundfile",
        bag_probability=0.731_058_6,
        bag_logit=1.000_000_1,
        decision=True,
        threshold=0.5,
        bags=BagScores((0.0,), (0.5 * (segments + 3),), (0.731_058_6,), (1.000_000_1,), (segments,)),
        segments=SegmentScores(
            start_s=starts,
            end_s=tuple(start + 2.0 for start in starts),
            probability=tuple((index + 1) / (segments + 1.3) for index in range(segments)),
            logit=tuple(0.173 * index - 1.0 for index in range(segments)),
        ),
        segments_total=segments,
        analyzed_s=0.5 * (segments + 3),
        truncated=False,
        events=(CoughEvent(start_s=1.5, end_s=3.0, peak=0.8, mean=0.6, bins=3),),
        peak_dbfs=-3.173_2,
        rms_dbfs=-21.731_9,
        clipped_share=0.0,
        dc_offset=0.000_173,
        warnings=(),
        timings_ms={"fetch": 3.683, "decode": 0.476, "preprocess": 8.354, "inference": 84.022},
        software=Software(
            tussis_version="0.1.0",
            onnxruntime_version="1.32.0",
            torch_version="2.11.0",
            torchaudio_version="2.11.0",
            decoder_library="libsndfile 1.2.2",
            provider="cpu",
            graph="folded+winograd",
            processor="a processor (avx2)",
        ),
    )


def _writer(
    url: str, model: ModelFacts, segments: int, claimed: Sequence[Claimed], run: str
) -> Callable[[int], object]:
    """The function that one process runs for an item: write the result of its claim; if it has none, claim first."""
    store = Store.connect(url, direct=True)
    result = result_of(segments)

    def write(item: int) -> None:
        claim = claimed[item] if claimed else _claimed(store, model, f"{run}/{item}.wav", segments)
        assert store.complete(claim, result)

    return write


def _claimed(store: Store, model: ModelFacts, key: str, segments: int) -> Claimed:
    answer = store.claim(request_for(model, key, segments))
    assert isinstance(answer, Claimed), answer
    return answer


def _rates(
    store: Store,
    server: Postgres,
    url: str,
    model: ModelFacts,
    segments: int,
    claims: bool,
    recordings: int,
    rounds: int,
) -> list[Rate]:
    run = uuid.uuid4().hex
    count = _WARM_UP + rounds * recordings
    before = [] if claims else [_claimed(store, model, f"{run}/{number}.wav", segments) for number in range(count)]
    found = []
    with Crew(CONNECTIONS, _writer, url, model, segments, before, run) as crew:
        crew.run(range(_WARM_UP))
        for first in range(_WARM_UP, count, recordings):
            cpu = _server_cpu_s(server)
            spent = crew.run(range(first, first + recordings))
            found.append(Rate(recordings, spent, _server_cpu_s(server) - cpu))
    return found


def _waits(store: Store, server: Postgres, model: ModelFacts, count: int) -> list[Waits]:
    """Time the writes through one connection, each after an fsync, so that a slow disk slows down all of them."""
    run = uuid.uuid4().hex
    results = {segments: result_of(segments) for segments in SEGMENTS}
    seconds: dict[str, list[float]] = {}

    def timed(what: str, call: Callable[[], T]) -> T:
        began = time.perf_counter()
        answer = call()
        seconds.setdefault(what, []).append(time.perf_counter() - began)
        return answer

    path = server.data.parent / "fsync"
    try:
        with path.open("wb", buffering=0) as file:
            for number in range(count + 10):
                if number == 10:
                    seconds.clear()
                timed("fsync", partial(_write_through, file.fileno()))
                for segments, result in results.items():
                    request = request_for(model, f"{run}/{number}/{segments}.wav", segments)
                    claim = timed("claim", partial(store.claim, request))
                    assert isinstance(claim, Claimed)
                    timed(f"result of {segments} segments", partial(store.complete, claim, result))
    finally:
        path.unlink(missing_ok=True)
    return [Waits(what, tuple(found)) for what, found in seconds.items()]


def _forgetting_waits(store: Store, url: str, model: ModelFacts, count: int) -> list[Waits]:
    """Time claims with and without the check for forgotten recordings, a few of each in turns."""
    run = uuid.uuid4().hex
    seconds: dict[str, list[float]] = {what: [] for what in _FORGETTING}
    with psycopg.connect(url, autocommit=True) as owner:
        for turn in range(_TURNS):
            for what, statements in _FORGETTING.items():
                for statement in statements:
                    owner.execute(statement)
                for number in range(_WARM_UP + count // _TURNS):
                    request = request_for(model, f"{run}/{what}/{turn}/{number}.wav", 4)
                    began = time.perf_counter()
                    assert isinstance(store.claim(request), Claimed)
                    if number >= _WARM_UP:  # The statement before has discarded the plans.
                        seconds[what].append(time.perf_counter() - began)
    return [Waits(what, tuple(found)) for what, found in seconds.items()]


def _write_through(file: int) -> None:
    """Write as a commit does: overwrite a page, and fsync."""
    os.pwrite(file, bytes(_PAGE), 0)
    os.fsync(file)


def _server_cpu_s(server: Postgres) -> float:
    """User and system seconds of PostgreSQL's running processes."""
    total = 0.0
    main = psutil.Process(server.pid)
    for process in (main, *main.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _measurements(
    rates: dict[tuple[int, bool], list[Rate]], waits: list[Waits], rounds: int, command: str
) -> Measurements:
    fsync = next(found for found in waits if found.what == "fsync")
    rows: list[tuple[Cell, ...]] = []
    verdicts = []
    for (segments, claims), found in rates.items():
        each = statistics.median(rate.spent.wall_s / rate.recordings for rate in found)
        rows.append(
            (
                f"{'claim and result' if claims else 'result'}, {segments} segments",
                CONNECTIONS,
                1 / each,
                segments / each,
                None,
                None,
                None,
                statistics.median(rate.spent.cpu_s / rate.recordings for rate in found) * 1000,
                statistics.median(rate.server_cpu_s / rate.recordings for rate in found) * 1000,
            )
        )
        if segments == SEGMENTS[0] and not claims:
            verdicts.append(
                TargetCheck(f"segment rows a second, {segments} a transaction", segments / each, ROWS_TARGET)
            )
    for wait in waits:
        beyond = wait.median_ms - fsync.median_ms
        alone = wait is fsync
        rows.append(
            (
                wait.what,
                None if alone else 1,
                None,
                None,
                wait.median_ms,
                wait.p99_ms,
                None if alone else beyond,
                None,
                None,
            )
        )
        if not alone:
            verdicts.append(TargetCheck(f"ms beyond one fsync, {wait.what}", beyond, BEYOND_TARGET, at_most=True))
    return Measurements(
        title="Store, every commit synced",
        command=command,
        columns=(
            Column("what"),
            Column("connections"),
            Column("recordings", "1/s", 0),
            Column("segment rows", "1/s", 0),
            Column("median", "ms", 2),
            Column("p99", "ms", 2),
            Column("beyond one fsync", "ms", 2),
            Column("client's CPU", "ms", 2),
            Column("PostgreSQL's CPU", "ms", 2),
        ),
        rows=tuple(rows),
        hardware=hardware(),
        notes=(
            f"{CONNECTIONS} processes with a connection each, recordings that nobody has seen, one transaction for the"
            f" claim and one for the result; CPU a recording; medians of {rounds} rounds. The clients share the cores"
            " with the server.",
            f"Alone: {len(fsync.seconds)} of each, in turns with an fsync of {_PAGE} bytes in the folder of the"
            " server's data. The claims below are taken in turns: without the check, with it, and with recordings"
            " forgotten.",
        ),
        verdicts=tuple(verdicts),
    )
