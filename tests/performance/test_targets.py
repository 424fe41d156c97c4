"""The speed that was promised, in CPU seconds, which a busy machine disturbs less than it does wall time.

``tussis bench`` and ``python -m benchmarks`` measure the same at length; ``docs/performance.md`` has their tables. Each
target is asserted with 0.05 of slack, because a short measurement is a rough one. The long ones, marked ``slow``, are a
part of `make bench`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.latency import MEDIAN_MS, P99_MS
from tests.support.benching import Bench, has_processor_flag, reach
from tests.support.processes import ROOT

#: A measurement takes half a minute on two quiet cores; it may be made three times, on a machine a third as fast.
pytestmark = [pytest.mark.performance, pytest.mark.timeout(1900)]

SLACK = 0.05
#: Where `make bench` leaves its reports.
REPORTS = ROOT / "build" / "bench"


def test_the_pipeline_stays_close_to_the_floor_and_leaves_the_plain_one_behind(
    benchmarks: Bench, random_resnet: Path
) -> None:
    def measure() -> dict[str, float]:
        only = ("--only", "10s", "--only", "2s", "--only", "mix")
        return benchmarks.verdicts(
            "pipeline", "--quick", "--rounds", "1", "--against", "celery", "--original", random_resnet, *only
        )

    # Without AVX-512 the rewritten graph gains nothing: on an AMD EPYC with AVX2 the model's own floor was only 1.8 to
    # 1.97 times plain Celery on the mix. Tussis ran at 0.94 to 1.05 of that floor, so it cannot reach the 2.0.
    mix = 2.0 if has_processor_flag("avx512f") else 1.7
    reach(
        measure,
        {
            "10s: of the floor, CPU": 0.90 - SLACK,
            "2s: of the floor, CPU": 0.80 - SLACK,
            "mix (synthetic): of the floor, CPU": 0.80 - SLACK,
            "10s: times plain Celery, CPU": 1.6 - SLACK,
            "mix (synthetic): times plain Celery, CPU": mix - SLACK,
        },
    )


def test_an_int8_model_stays_close_to_its_own_floor(bench: Bench, int8_resnet: Path) -> None:
    def measure() -> dict[str, float]:
        only = ("--only", "10s", "--only", "mix")
        return bench.verdicts("pipeline", "--quick", "--rounds", "1", "--original", int8_resnet, *only)

    reach(measure, {"10s: of the floor, CPU": 0.80 - SLACK, "mix (synthetic): of the floor, CPU": 0.65 - SLACK})


def test_a_small_model_stays_close_to_the_work_around_it(benchmarks: Bench) -> None:
    """The target of 0.8 is out of reach for short recordings; docs/performance.md says why, and what is reached."""

    def measure() -> dict[str, float]:
        return benchmarks.verdicts("bound", "--quick", "--rounds", "3", "--only", "10s", "--only", "mix")

    # More slack: a pass takes a fifth of a second. Single measurements were 0.66 to 0.77 (mix) and 0.75 to 0.88 (10 s).
    targets = {"10s": 0.80 - 2 * SLACK, "mix (synthetic)": 0.80 - 3 * SLACK}
    reach(measure, {f"{name}: of the bound, CPU": ratio for name, ratio in targets.items()})


def test_an_idle_worker_answers_in_time(benchmarks: Bench) -> None:
    """At three times what is promised of a quiet machine."""
    reach(
        lambda: benchmarks.verdicts("latency", "--quick"),
        {f"ms of an answer beside the model, {what}": 3 * ms for what, ms in (("median", MEDIAN_MS), ("99 %", P99_MS))},
        at_most=True,
    )


def test_a_worker_is_ready_in_time_and_the_help_answers_at_once(benchmarks: Bench, random_resnet: Path) -> None:
    """At three times what is promised of a quiet machine."""
    reach(
        lambda: benchmarks.verdicts("start", "--quick", "--rounds", "3", "--original", random_resnet),
        {"seconds until the worker is ready": 3 * 8.0, "seconds of tussis --help": 3 * 0.3},
        at_most=True,
    )


def test_one_process_enqueues_many_and_a_backlog_costs_nothing(benchmarks: Bench) -> None:
    """In CPU seconds, and at half the rate that is promised of a quiet machine."""

    def measure() -> dict[str, float]:
        report = benchmarks.report("queue", "--quick", "--rounds", "1")
        enqueue = dict(zip([column["name"] for column in report["columns"]], report["rows"][0], strict=True))
        (cost,) = (verdict for verdict in report["verdicts"] if verdict["what"].startswith("CPU a message before"))
        return {"jobs a CPU second": 1e6 / enqueue["upstream's CPU"], "thrift with a backlog": 1 / cost["measured"]}

    reach(measure, {"jobs a CPU second": 10_000, "thrift with a backlog": 1 / 1.25})


def test_a_result_costs_client_and_database_little(benchmarks: Bench) -> None:
    """In CPU seconds, which is what bounds the rate where four connections share one fsync; at a third of the rate that
    is promised of a quiet machine, and at thrice the milliseconds."""

    def measure() -> dict[str, float]:
        report = benchmarks.report("store", "--quick", "--rounds", "1")
        names = [column["name"] for column in report["columns"]]
        rows = {row[0]: dict(zip(names, row, strict=True)) for row in report["rows"]}
        most, least = rows["result, 32 segments"], rows["claim and result, 4 segments"]
        return {
            "segment rows a CPU second": 32_000 / (most["client's CPU"] + most["PostgreSQL's CPU"]),
            "claims and results a client's CPU second": 1_000 / least["client's CPU"],
        }

    reach(measure, {"segment rows a CPU second": 20_000 / 3, "claims and results a client's CPU second": 1_000 / 9})


@pytest.mark.slow
@pytest.mark.timeout(1900)
def test_queries_and_results_stay_fast_over_a_million_segments(benchmarks: Bench) -> None:
    """In milliseconds, and the rate of results with more slack, because a busy machine disturbs it."""

    def measure() -> dict[str, float]:
        report = benchmarks.report("rows", "--rounds", "3", file=REPORTS / "rows.json", timeout_s=600)
        *queries, rate = report["verdicts"]
        assert len(queries) > 15
        worst: dict[str, float] = {"times the rate in an empty database": 1 / rate["measured"]}
        for query in queries:
            what = f"ms of the slowest query with the target {query['target']:g}"
            worst[what] = max(worst.get(what, 0.0), query["measured"])
        return worst

    targets = {f"ms of the slowest query with the target {ms}": float(ms) for ms in (200, 5000)}
    reach(measure, targets | {"times the rate in an empty database": 1 / 0.8}, at_most=True)


@pytest.mark.slow
@pytest.mark.timeout(1900)
def test_a_million_waiting_messages_cost_no_more_than_a_thousand(benchmarks: Bench) -> None:
    report = benchmarks.report("queue", "--rounds", "3", file=REPORTS / "queue.json", timeout_s=1700)

    assert all(verdict["reached"] for verdict in report["verdicts"]), report["verdicts"]


@pytest.mark.slow
@pytest.mark.timeout(1900)
def test_memory_stays_flat_over_ten_thousand_recordings(bench: Bench, random_resnet: Path) -> None:
    report = bench.report("memory", "--original", random_resnet, file=REPORTS / "memory.json", timeout_s=1700)

    assert all(verdict["reached"] for verdict in report["verdicts"]), report["verdicts"]


def test_an_old_client_is_answered_in_time(benchmarks: Bench, random_resnet: Path) -> None:
    """At three times what is promised of a quiet machine."""
    reach(
        lambda: benchmarks.verdicts("gateway", "--quick", "--original", random_resnet),
        {"ms from request to answer beside the model": 3 * 60.0, "ms of CPU of a request in the gateway": 3 * 15.0},
        at_most=True,
    )
