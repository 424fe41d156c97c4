"""Run a soak from its first recording to its totals."""

from __future__ import annotations

import random
import statistics
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.faults import FAULTS
from tests.soak.plant import BUCKET, Plant, plant
from tests.soak.recordings import ALLOWED, Kind, SoakRecording, recording
from tussis.shared.errors import TransientError
from tussis.shared.messages import Job, normalise_etag
from tussis.shared.states import AnalysisState
from tussis.shared.store.records import ResultFilter

#: Seconds between two faults.
_BETWEEN_S = (3.0, 9.0)
#: Seconds between two recordings: a rate that two cores can handle under faults.
_PACE_S = 0.25
#: Seconds for all jobs to end after the last fault.
_DRAIN_S = 300.0


@dataclass
class Account:
    """The totals of a soak. ``problems`` is empty when all guarantees held."""

    seed: int
    enqueued: int = 0
    results: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    still_open: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    recovery_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Seconds from the end of a fault to the next answer, by the name of the fault."""
    drained_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the totals as text."""
        told = [f"{name} {count}" for name, count in sorted(self.failures.items())]
        lines = [
            f"seed {self.seed}, {sum(self.faults.values())} faults: "
            + ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items())),
            f"enqueued {self.enqueued} = results {self.results} + failures {sum(self.failures.values())}"
            f" ({', '.join(told) or 'none'})",
            f"duplicates {self.duplicates}, open {self.still_open}, drained in {self.drained_s:.0f} s",
        ]
        for name, times in sorted(self.recovery_s.items()):
            lines.append(
                f"recovery after {name}: median {statistics.median(times):.1f} s, longest {max(times):.1f} s,"
                f" of {len(times)}"
            )
        return lines + [f"PROBLEM: {problem}" for problem in self.problems]


def soak(minutes: float, seed: int, data: Path, model: Path, workers: int, say: Callable[[str], None]) -> Account:
    """Run the pipeline under faults for ``minutes``, drain it, and count. Raises the errors of the servers."""
    account = Account(seed)
    with plant(data, model, workers) as made:
        feeder = _Feeder(made, seed)
        feeder.start()
        try:
            _hurt(made, account, random.Random(seed), time.monotonic() + minutes * 60, say)
        finally:
            feeder.stop()
        say(f"no more faults; draining {feeder.count} recordings")
        account.drained_s = _drain(made)
        _settle(made, feeder, account)
    return account


class _Feeder(threading.Thread):
    """Upstream: uploads and enqueues, and repeats each call that raised an error."""

    def __init__(self, made: Plant, seed: int) -> None:
        super().__init__(name="feeder", daemon=True)
        self._plant = made
        self._seed = seed
        self._over = threading.Event()
        # A new prefix: objects of an earlier soak in the same folder have answers already.
        self._prefix = uuid.uuid4().hex[:8]
        self.jobs: dict[str, SoakRecording] = {}
        """Every job that was enqueued without an error, by id."""

    @property
    def count(self) -> int:
        return len(self.jobs)

    def run(self) -> None:
        number = 0
        while not self._over.wait(_PACE_S):
            self._feed(recording(number, self._seed))
            number += 1

    def stop(self) -> None:
        """Stop enqueueing."""
        self._over.set()
        self.join()

    def _feed(self, item: SoakRecording) -> None:
        key = f"{self._prefix}/{item.key}"
        etag = None
        if item.data is not None:
            answer = self._plant.client.put_object(Bucket=BUCKET, Key=key, Body=item.data)
            etag = normalise_etag(answer["ETag"])
        job = Job(job_id=str(uuid.uuid4()), bucket=BUCKET, key=key, etag=etag, enqueued_at=time.time())
        while not self._over.is_set():
            try:
                self._plant.ledger.open(job)
            except TransientError:
                self._over.wait(0.5)
                continue
            self.jobs[job.job_id] = item
            return


def _hurt(made: Plant, account: Account, rng: random.Random, ends: float, say: Callable[[str], None]) -> None:
    over = threading.Event()
    wait_answers(made, 1, 120.0)
    while time.monotonic() < ends:
        over.wait(rng.uniform(*_BETWEEN_S))
        name = rng.choice(list(FAULTS))
        done = FAULTS[name](made, rng, over)
        account.faults[name] += 1
        before = answers(made)
        began = time.monotonic()
        recovered = wait_answers(made, before + 1, 90.0)
        took = time.monotonic() - began
        made.replace_dead()
        account.recovery_s[name].append(took)
        say(f"{done}: next answer after {took:.1f} s")
        if not recovered:
            account.problems.append(f"no answer for 90 s after: {done}")


def answers(made: Plant) -> int:
    """Return the number of results and failures so far. Waits for a database that is starting."""
    while True:
        try:
            counts = made.store.counts()
            return counts.succeeded + counts.failed
        except TransientError:
            time.sleep(0.2)


def wait_answers(made: Plant, number: int, timeout_s: float) -> bool:
    """Wait for ``number`` answers, and replace workers that ended. Returns False when the time is over."""
    ends = time.monotonic() + timeout_s
    while answers(made) < number:
        made.replace_dead()
        if time.monotonic() > ends:
            return False
        time.sleep(0.1)
    return True


def _drain(made: Plant) -> float:
    began = time.monotonic()
    while time.monotonic() - began < _DRAIN_S:
        depth = made.ledger.depth()
        if not (depth.open or depth.total_waiting or depth.in_flight or depth.deferred):
            break
        made.replace_dead()
        time.sleep(0.2)
    return time.monotonic() - began


def _settle(made: Plant, feeder: _Feeder, account: Account) -> None:
    """Compare the content of the store with the guarantees."""
    depth = made.ledger.depth()
    account.enqueued = feeder.count
    account.still_open = depth.open + depth.total_waiting + depth.in_flight + depth.deferred
    if account.still_open:
        account.problems.append(f"open at the end: {depth}")
    rows = Counter(analysis.uri for analysis in made.store.results(ResultFilter()))
    account.duplicates = sum(count - 1 for count in rows.values())
    for job_id, item in feeder.jobs.items():
        answer = made.store.job(job_id)
        if answer is None:
            account.problems.append(f"lost: {item.key}")
            continue
        analysis = answer.analysis
        if analysis.state is AnalysisState.SUCCEEDED:
            account.results += 1
            if item.kind in (Kind.BROKEN, Kind.POISON, Kind.MISSING):
                account.problems.append(f"a result for {item.key}")
            if len(answer.segments) != analysis.segments:
                account.problems.append(f"{len(answer.segments)} of {analysis.segments} segments: {item.key}")
        elif analysis.state is AnalysisState.FAILED:
            account.failures[str(analysis.error_class)] += 1
            if analysis.error_class not in ALLOWED[item.kind]:
                account.problems.append(f"{item.key}: {analysis.error_class}: {analysis.error_message}")
        else:
            account.problems.append(f"{item.key} is {analysis.state}")
    if account.duplicates:
        account.problems.append(f"{account.duplicates} analyses more than objects")
    if account.enqueued != account.results + sum(account.failures.values()):
        account.problems.append("enqueued is not results + failures")
