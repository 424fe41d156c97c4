"""The sweep on real servers: which objects it enqueues, which it skips, and how it continues after an interruption."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine

from tests.support.deployment import Deployment
from tests.support.months import make_older
from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, execute, forget, model_facts
from tests.support.waiting import PATIENCE
from tussis.shared.broker import connect
from tussis.shared.errors import BrokerUnavailable, FileUnreadable
from tussis.shared.forgetting import object_target, prefix_target
from tussis.shared.ledger import Ledger
from tussis.shared.messages import Job, job_id_for
from tussis.shared.queues import Device, list_key
from tussis.shared.s3 import ListedObject
from tussis.shared.states import AnalysisState, AttemptOutcome
from tussis.shared.store.known import AnalysisCriteria, known_statement
from tussis.shared.store.records import Claimed, ModelFacts
from tussis.shared.store.repository import Store
from tussis.shared.uris import ObjectAddress
from tussis.worker.detector.manifest import read_manifest
from tussis.worker.sweep.progress import SweepProgress, read_progress, write_progress
from tussis.worker.sweep.sweep import PAGE, Sweep, SweepCounts, SweepRequest, SweptPage

BUCKET = "recordings"
ETAG = "e1"
SERVED = AnalysisCriteria(sha256="a" * 64, profile="documented")
OTHER = AnalysisCriteria(sha256="b" * 64, profile="documented")
ORDER = SweepRequest(
    prefix=ObjectAddress(BUCKET, ""),
    criteria=SERVED,
    model=None,
    profile=None,
    coverage=None,
    priority=9,
    device=Device.ANY,
    max_depth=100_000,
)


@pytest.fixture
def ledger(deployment: Deployment) -> Ledger:
    return deployment.ledger


@pytest.fixture
def store(deployment: Deployment) -> Store:
    return deployment.store


@pytest.fixture
def served(store: Store) -> ModelFacts:
    """The model that the workers serve."""
    facts = model_facts()
    store.register_model(facts)
    return facts


def listed(*keys: str) -> list[ListedObject]:
    return [ListedObject(key, ETAG, 100) for key in sorted(keys)]


def plain_job(key: str, **fields: Any) -> Job:
    """Return the job that the sweep, and ``enqueue --prefix``, makes of a key."""
    named = {name: fields.get(name) for name in ("model", "profile")}
    job_id = job_id_for(BUCKET, key, version_id=None, etag=ETAG, **named)
    return a_job(key=key, etag=ETAG, job_id=job_id, **fields)


def begin(store: Store, model: ModelFacts, key: str, **fields: Any) -> Claimed:
    """Claim the recording as a worker does."""
    return claimed(store.claim(a_claim(plain_job(key, **fields), model)))


def sweep(
    store: Store, ledger: Ledger, objects: Iterable[ListedObject], order: SweepRequest = ORDER
) -> tuple[list[SweptPage], SweepCounts]:
    def listing(start_after: str) -> Iterable[ListedObject]:
        return (found for found in objects if found.key > start_after)

    run = Sweep(order, listing, ledger, store)
    return list(run.run()), run.counts


def analysis_of(store: Store, key: str) -> int:
    answer = store.job(plain_job(key).job_id)
    assert answer is not None
    return answer.analysis.id


def uris(steps: list[SweptPage]) -> list[str]:
    return [uri for step in steps for uri in step.uris]


def test_only_what_has_neither_answer_nor_open_work_is_enqueued(
    store: Store, ledger: Ledger, served: ModelFacts
) -> None:
    store.complete(begin(store, served, "answered"), a_result())
    store.fail(begin(store, served, "failed"), "corrupt", "why")
    store.fail(begin(store, served, "discarded"), "corrupt", "why")
    store.discard([analysis_of(store, "discarded")])
    store.refuse(a_refusal(plain_job("was-missing"), etag=ETAG, model=served))
    ledger.open(plain_job("waiting"))
    begin(store, served, "running")
    ledger.open(plain_job("running"))

    objects = listed("answered", "failed", "discarded", "was-missing", "waiting", "running", "new")
    steps, counts = sweep(store, ledger, objects)

    assert uris(steps) == ["s3://recordings/new", "s3://recordings/was-missing"]
    assert counts == SweepCounts(listed=7, answered=1, open=2, failed=1, discarded=1, enqueued=2)
    assert ledger.find(plain_job("new").job_id) is not None
    # The object exists again: the message, unchanged, reopens its failure.
    again = ledger.find(plain_job("was-missing").job_id)
    assert again is not None
    assert claimed(store.claim(a_claim(again, served))).number == 2
    # A second sweep has nothing to do.
    steps, counts = sweep(store, ledger, objects)
    assert uris(steps) == []
    assert counts.open == 4


def test_a_dry_run_says_the_same_and_sends_nothing(store: Store, ledger: Ledger, served: ModelFacts) -> None:
    begin(store, served, "stranded")
    steps, counts = sweep(store, ledger, listed("a", "stranded"), replace(ORDER, dry_run=True))
    assert uris(steps) == ["s3://recordings/stranded", "s3://recordings/a"]
    assert (counts.enqueued, counts.stranded, counts.open) == (1, 1, 1)
    assert ledger.depth().open == 0


def test_failures_are_enqueued_on_demand_and_discarded_ones_never(
    store: Store, ledger: Ledger, served: ModelFacts
) -> None:
    # The producer's clock was an hour ahead.
    ahead = time.time() + 3600
    store.fail(begin(store, served, "failed", enqueued_at=ahead), "corrupt", "why")
    store.fail(begin(store, served, "discarded"), "corrupt", "why")
    store.discard([analysis_of(store, "discarded")])

    steps, counts = sweep(store, ledger, listed("failed", "discarded"), replace(ORDER, retry_failed=True))

    assert uris(steps) == ["s3://recordings/failed"]
    assert counts.discarded == 1
    message = ledger.find(plain_job("failed").job_id)
    assert message is not None
    again = claimed(store.claim(a_claim(message, served)))
    assert again.number == 2
    assert [attempt.outcome for attempt in store.attempts_of(again.analysis_id)] == [AttemptOutcome.FAILED, None]


def test_cancelled_objects_are_enqueued_on_demand(store: Store, ledger: Ledger, served: ModelFacts) -> None:
    # The producer's clock was an hour ahead.
    job = plain_job("cancelled", enqueued_at=time.time() + 3600)
    store.cancel([job], "ops@host")

    steps, counts = sweep(store, ledger, listed("cancelled"), ORDER)
    assert (uris(steps), counts.cancelled, counts.enqueued) == ([], 1, 0)
    # Another model has not been cancelled.
    steps, _ = sweep(store, ledger, listed("cancelled"), replace(ORDER, criteria=OTHER, dry_run=True))
    assert uris(steps) == ["s3://recordings/cancelled"]

    steps, counts = sweep(store, ledger, listed("cancelled"), replace(ORDER, retry_cancelled=True))
    assert (uris(steps), counts.cancelled, counts.enqueued) == (["s3://recordings/cancelled"], 0, 1)
    message = ledger.find(job.job_id)
    assert message is not None
    assert claimed(store.claim(a_claim(message, served))).number == 1


def test_forgotten_objects_are_counted_and_not_enqueued(
    deployment: Deployment, store: Store, ledger: Ledger, served: ModelFacts
) -> None:
    for target in (object_target(f"s3://{BUCKET}/anna.wav"), prefix_target(f"s3://{BUCKET}/bert/")):
        forget(deployment.environment["TUSSIS_DATABASE_URL"], target)

    steps, counts = sweep(store, ledger, listed("anna.wav", "anna.wav2", "bert/1.wav", "bert/2.wav", "bert2.wav"))

    assert uris(steps) == [f"s3://{BUCKET}/anna.wav2", f"s3://{BUCKET}/bert2.wav"]
    assert (counts.forgotten, counts.enqueued) == (3, 2)
    assert ledger.depth().open == 2


@pytest.mark.parametrize(
    ("criteria", "answered"),
    [
        (SERVED, ["mine"]),
        (AnalysisCriteria(sha256="b" * 64), ["other", "other-failed"]),
        (AnalysisCriteria(sha256="c" * 64), []),
        (AnalysisCriteria(), ["mine", "other", "other-failed", "not-served"]),
        (AnalysisCriteria(model="other"), ["other", "other-failed"]),
        (AnalysisCriteria(model="other@7"), ["other", "other-failed"]),
        (AnalysisCriteria(model="other@8"), []),
        (AnalysisCriteria(model="third@1"), ["not-served"]),
        (AnalysisCriteria(profile="legacy"), ["mine-legacy"]),
    ],
    ids=str,
)
def test_what_counts_as_an_answer(
    store: Store, ledger: Ledger, served: ModelFacts, criteria: AnalysisCriteria, answered: list[str]
) -> None:
    other = model_facts(name="other", version="7", sha256="b" * 64)
    store.complete(begin(store, served, "mine"), a_result())
    job = plain_job("mine-legacy", profile="legacy")
    store.complete(claimed(store.claim(a_claim(job, served, profile="legacy", profile_overridden=True))), a_result())
    store.complete(begin(store, other, "other"), a_result())
    store.fail(begin(store, other, "other-failed"), "corrupt", "why")
    store.refuse(
        a_refusal(
            plain_job("not-served", model="third@1"), etag=ETAG, error_class="model_not_served",
            model_requested="third@1",
        )
    )  # fmt: skip

    keys = {"mine", "other", "other-failed", "not-served", "mine-legacy"}
    steps, _ = sweep(store, ledger, listed(*keys), replace(ORDER, criteria=criteria, dry_run=True))

    assert {uri.rpartition("/")[2] for uri in uris(steps)} == keys - set(answered)


def test_another_content_under_the_same_key_is_another_recording(
    store: Store, ledger: Ledger, served: ModelFacts
) -> None:
    store.complete(begin(store, served, "a"), a_result())
    steps, counts = sweep(store, ledger, [ListedObject("a", "e2", 100)])
    assert uris(steps) == ["s3://recordings/a"]
    assert counts.answered == 0


def test_what_was_begun_comes_back_whatever_was_asked_of_it(store: Store, ledger: Ledger, served: ModelFacts) -> None:
    """The broker lost its data: some open analyses match no key of the listing."""
    begin(store, served, "running")
    store.release(begin(store, served, "waiting"), AttemptOutcome.TRANSIENT, "storage_unavailable", "503")
    again = plain_job("again", again=True)
    store.claim(a_claim(again, served))
    versioned = a_job(key="versioned", etag=ETAG, version_id="v1")
    store.claim(a_claim(versioned, served, version_id="v1"))
    elsewhere = a_job(key="elsewhere/x", bucket="another", etag=ETAG)
    store.claim(a_claim(elsewhere, served))
    still_open = plain_job("open")
    ledger.open(still_open)
    store.claim(a_claim(still_open, served))

    _, counts = sweep(store, ledger, listed("running", "waiting", "again", "versioned", "open"))

    assert counts.stranded == 4
    # "again" has no answer without `again` either, so it is enqueued as well.
    assert (counts.open, counts.enqueued) == (5, 0)
    assert ledger.depth().open == 5
    message = ledger.find(versioned.job_id)
    assert message is not None
    assert (message.version_id, message.etag, message.reopen) == ("v1", ETAG, False)
    for job in (plain_job("running"), plain_job("waiting"), again, versioned):
        found = ledger.find(job.job_id)
        assert found is not None
        taken = claimed(store.claim(a_claim(found, served, version_id=found.version_id)))
        assert store.complete(taken, a_result())
    states = [row.state for row in (store.job(again.job_id).analysis, store.job(versioned.job_id).analysis)]  # type: ignore[union-attr]
    assert states == [AnalysisState.SUCCEEDED] * 2


def test_the_queue_is_kept_under_a_depth(store: Store, ledger: Ledger, served: ModelFacts, broker_url: str) -> None:
    for number in range(3):
        ledger.open(a_job(key=f"before-{number}"))
    client = connect(broker_url)
    depths: list[int] = []
    waited: list[int] = []

    def drain(seconds: float) -> None:
        """Take two messages while the sweep waits."""
        depths.append(ledger.depth().total_waiting)
        name = next(name for name in (list_key("tussis.any", 5), list_key("tussis.any", 9)) if client.exists(name))
        client.rpop(name, 2)

    run = Sweep(
        replace(ORDER, max_depth=5),
        lambda start_after: listed(*(f"{number:02d}" for number in range(20))),
        ledger,
        store,
        on_full=waited.append,
        pause=drain,
    )
    for _ in run.run():
        pass

    assert run.counts.enqueued == 20
    assert depths == waited
    assert set(depths) == {5}
    assert ledger.depth().total_waiting <= 5


def test_a_key_that_no_job_can_name_is_refused_alone(store: Store, ledger: Ledger, served: ModelFacts) -> None:
    objects = [*listed("a"), ListedObject("b\x00", ETAG, 1), ListedObject("c", 'e"1', 1), *listed("d")]
    (step,), counts = sweep(store, ledger, objects)
    assert step.uris == ["s3://recordings/a", "s3://recordings/d"]
    assert len(step.refusals) == counts.refused == 2
    assert counts.listed == 4


class _Breaking:
    """A ledger whose broker becomes unavailable after some pages."""

    def __init__(self, ledger: Ledger, after: int) -> None:
        self._ledger, self._left = ledger, after

    def which_open(self, job_ids: list[str]) -> set[str]:
        self._left -= 1
        if self._left < 0:
            raise BrokerUnavailable("gone")
        return self._ledger.which_open(job_ids)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)


def test_a_sweep_that_was_broken_off_goes_on_where_it_was(
    store: Store, ledger: Ledger, served: ModelFacts, tmp_path: Path
) -> None:
    objects = listed(*(f"{number:05d}" for number in range(3 * PAGE + 7)))
    asked: list[str] = []

    def listing(start_after: str) -> Iterator[ListedObject]:
        asked.append(start_after)
        return (found for found in objects if found.key > start_after)

    file, order = tmp_path / "place", {"prefix": "s3://recordings/"}
    broken = Sweep(ORDER, listing, _Breaking(ledger, 2), store)  # type: ignore[arg-type]

    def keep_places() -> None:
        for step in broken.run():
            write_progress(file, SweepProgress(order, step.last_key, broken.counts))

    with pytest.raises(BrokerUnavailable):
        keep_places()

    progress = read_progress(file, order)
    assert progress is not None
    assert progress.last_key == "01999"
    rest = Sweep(ORDER, listing, ledger, store, counts=progress.counts)
    steps = list(rest.run(progress.last_key))

    assert asked == ["", "01999"]
    assert [len(step.uris) for step in steps] == [PAGE, 7]
    assert rest.counts == SweepCounts(listed=len(objects), enqueued=len(objects))
    assert ledger.depth().open == len(objects)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"v":1}', '{"v":2,"order":{},"last_key":"a","counts":{}}', "\xff"])
def test_a_file_that_is_no_place_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "place").write_text(text, encoding="latin-1")
    with pytest.raises(FileUnreadable, match="place"):
        read_progress(tmp_path / "place", {})


def test_a_place_of_another_sweep_is_refused(tmp_path: Path) -> None:
    write_progress(tmp_path / "place", SweepProgress({"prefix": "s3://a/", "model": "x"}, "k", SweepCounts(listed=3)))
    with pytest.raises(FileUnreadable, match=r"another sweep \(prefix differ"):
        read_progress(tmp_path / "place", {"prefix": "s3://b/", "model": "x"})
    assert read_progress(tmp_path / "none", {}) is None


def _endless(count: int) -> Iterator[ListedObject]:
    for number in range(count):
        yield ListedObject(f"2026/11/{number:09d}.wav", f"{number:032x}", 64_044)


@pytest.mark.parametrize("many", [20_000, pytest.param(200_000, marks=pytest.mark.faults_only)])
def test_a_long_listing_needs_the_memory_of_a_page(store: Store, ledger: Ledger, served: ModelFacts, many: int) -> None:
    def peak(count: int) -> int:
        run = Sweep(replace(ORDER, dry_run=True), lambda start_after: _endless(count), ledger, store)
        tracemalloc.start()
        try:
            for _ in run.run():
                pass
            assert run.counts.enqueued == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(2 * PAGE)  # Imports and caches.
    assert peak(many) < 1.3 * peak(4 * PAGE)


def test_the_command_sweeps_a_bucket_and_resumes(deployment: Deployment, tiny_model: Path, tmp_path: Path) -> None:
    for number in range(5):
        deployment.bucket.put(f"2026/{number}.wav", b"not really")
    deployment.bucket.put("2026/folder/", b"")
    deployment.bucket.put("2025/a.wav", b"elsewhere")
    prefix, place = deployment.bucket.uri("2026/"), tmp_path / "place"

    dry = deployment.tussis("sweep", prefix, "--dry-run")
    assert dry.wait(60) == 0, dry.text
    assert dry.stdout == [f"{prefix}{number}.wav" for number in range(5)]
    assert deployment.ledger.depth().open == 0
    assert "5 would be enqueued" in dry.stderr[-1]

    told = {"prefix": prefix, "model": read_manifest(tiny_model).sha256, "profile": None, "retry": False}
    write_progress(place, SweepProgress(told, "2026/1.wav", SweepCounts(listed=2, enqueued=2)))
    done = deployment.tussis("sweep", prefix, "--resume", str(place), "--json", "--priority", "3")
    assert done.wait(60) == 0, done.text
    summary = json.loads(done.stdout[0])
    assert summary == SweepCounts(listed=5, enqueued=5).as_dict() | {"dry_run": False, "done": True}
    assert deployment.ledger.depth().waiting["tussis.any"] == {3: 3}
    assert not place.exists()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["s3://B/none/"], 1, "no object is under"),
        (["s3://B", "--model", "a", "--any-model"], 2, "not both"),
        (["s3://B", "--dry-run", "--resume", "x"], 2, "saves no progress"),
        (["s3://B", "--profile", "nonsense"], 1, "nonsense"),
        (["s3://B", "--model", "cuogh"], 2, "no worker has served the model 'cuogh': did you mean 'cough'?"),
        (["s3://B", "--model", "cough@9"], 2, "no worker has served the model 'cough@9': did you mean 'cough@1'?"),
        (["s3://B", "--model", "caf\udce9"], 2, "no worker has served the model 'caf\\udce9': "),
        (["nonsense"], 1, "not an S3 URI"),
        (["s3://B-does-not-exist"], 1, "does not exist"),
    ],
    ids=lambda value: str(value),
)
def test_the_command_refuses(deployment: Deployment, arguments: list[str], status: int, words: str) -> None:
    deployment.store.register_model(model_facts())
    run = deployment.tussis("sweep", *(word.replace("s3://B", f"s3://{deployment.bucket.name}") for word in arguments))
    assert run.wait(60) == status, run.text
    assert words in run.stderr[-1]
    assert not any("Traceback" in line for line in run.stderr)


def test_a_page_is_looked_up_in_the_index(deployment: Deployment, store: Store, served: ModelFacts) -> None:
    url = deployment.environment["TUSSIS_DATABASE_URL"]
    model_id = store.register_model(served)
    execute(
        url,
        "INSERT INTO recordings (bucket, key, etag) "
        f"SELECT '{BUCKET}', '2026/' || n || '.wav', '{ETAG}' FROM generate_series(1, 40000) n",
    )
    execute(
        url,
        "INSERT INTO analyses (recording_id, model_id, profile, profile_overridden, coverage, job_id, state, "
        "attempt_token, attempts, worker, device, enqueued_at, started_at) "
        f"SELECT id, {model_id}, 'documented', false, 'head', gen_random_uuid(), 'running', gen_random_uuid(), 1, 'w', "
        "'cpu', now(), now() FROM recordings",
    )
    execute(url, "ANALYZE")
    wanted = [f"2026/{number}.wav" for number in range(1, PAGE + 1)]
    statement = known_statement(BUCKET, SERVED).compile(dialect=create_engine("postgresql+psycopg://").dialect)
    parameters = statement.construct_params({"keys": wanted, "etags": [ETAG] * PAGE})
    with psycopg.connect(url) as connection:
        # For few rows a scan is faster. With millions, a page is a thousand look-ups, provided an index serves them.
        for way in ("seqscan", "hashjoin", "mergejoin"):
            connection.execute(f"SET enable_{way} = off".encode())
        plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN {statement}".encode(), parameters))

    assert "recordings_bucket_key_etag_key" in plan, plan
    assert "analyses_identity_key" in plan, plan
    assert "jobs_analysis_id_idx" in plan, plan
    began = time.monotonic()
    assert len(store.known(BUCKET, [(key, ETAG) for key in wanted], SERVED)) == PAGE
    assert time.monotonic() - began < 5 * PATIENCE


def test_what_retention_deleted_is_not_analysed_again(
    store: Store, ledger: Ledger, served: ModelFacts, deployment: Deployment
) -> None:
    for key in ("deleted", "failed"):
        claim = begin(store, served, key)
        if key == "failed":
            store.fail(claim, "corrupt", "why")
        else:
            store.complete(claim, a_result())
        make_older(deployment.environment["TUSSIS_DATABASE_URL"], claim.analysis_id, 20)
    told = deployment.tussis("retain", "--older-than", "400d", "--results", "--yes")
    assert told.wait(60) == 0, told.text
    assert "deleted 2 analyses and 2 recordings" in told.stdout
    objects = listed("deleted", "failed", "new")

    for order in (ORDER, replace(ORDER, retry_failed=True)):
        steps, counts = sweep(store, ledger, objects, replace(order, dry_run=True))
        assert uris(steps) == ["s3://recordings/new"]
        assert counts == SweepCounts(listed=3, deleted=2, enqueued=1)
    # Another model, and another content: they have no tombstone.
    other = AnalysisCriteria(sha256="b" * 64, profile="documented")
    assert len(uris(sweep(store, ledger, objects, replace(ORDER, criteria=other, dry_run=True))[0])) == 3
    changed = [ListedObject("deleted", "e2", 100)]
    assert len(uris(sweep(store, ledger, changed, replace(ORDER, dry_run=True))[0])) == 1

    told = deployment.tussis("retain", "--older-than", "0s", "--tombstones", "--yes")
    assert told.wait(60) == 0, told.text
    assert uris(sweep(store, ledger, objects)[0]) == [f"s3://recordings/{found.key}" for found in objects]
