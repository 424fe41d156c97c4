"""The shadow model in the store: which recordings it gets, where its analyses are hidden, and the comparison."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.store import a_claim, a_job, a_refusal, a_result, execute, label, model_facts, rows
from tussis.shared.errors import ModelUnknown, ShadowRefused
from tussis.shared.messages import Job, shadow_job
from tussis.shared.states import AnalysisState
from tussis.shared.store.known import AnalysisCriteria
from tussis.shared.store.records import Claimed, FailureFilter, ModelFacts, ResultFilter, Settled
from tussis.shared.store.repository import Store
from tussis.shared.uris import ObjectAddress

ONE = model_facts()
TWO = model_facts(version="2", sha256="b" * 64)
THREE = model_facts(version="3", sha256="c" * 64)


def position(bucket: str, key: str) -> float:
    """The position of an object, as docs/models.md describes it."""
    return int(hashlib.sha256(f"{bucket}/{key}".encode()).hexdigest()[:8], 16) / 2**32


def shadow_of(job: Job, model: ModelFacts = TWO) -> Job:
    return shadow_job(job, label(model), etag="e1", version_id=None)


def shadowed(store: Store, share: float = 1.0) -> None:
    """Cough@1 is active, cough@2 is its shadow."""
    for model in (ONE, TWO):
        store.register_model(model)
    store.activate(label(ONE), activated_by="a@test", force=True)
    store.start_shadow(label(TWO), share, started_by="b@test")


def answer(store: Store, job: Job, model: ModelFacts, probability: float = 0.8) -> Claimed:
    claim = store.claim(a_claim(job, model))
    assert isinstance(claim, Claimed)
    assert store.complete(claim, a_result(probability=probability))
    return claim


def fail(store: Store, job: Job, model: ModelFacts) -> Claimed:
    claim = store.claim(a_claim(job, model))
    assert isinstance(claim, Claimed)
    assert store.fail(claim, "audio_unreadable", "no audio")
    return claim


def test_a_share_of_the_recordings_is_chosen_by_their_hash(store: Store) -> None:
    shadowed(store, share=0.3)
    keys = [f"2026/hüsteln {number}.wav" for number in range(60)]
    chosen = set()
    for key in keys:
        claim = store.claim(a_claim(a_job(key=key), ONE))
        assert isinstance(claim, Claimed)
        if claim.shadow is not None:
            assert claim.shadow == "cough@2"
            chosen.add(key)
    assert chosen == {key for key in keys if position("recordings", key) < 0.3}
    assert 8 <= len(chosen) <= 30


def test_only_jobs_without_options_are_chosen(store: Store) -> None:
    shadowed(store)
    plain = store.claim(a_claim(a_job(), ONE))
    assert isinstance(plain, Claimed)
    assert plain.shadow == "cough@2"
    others = [
        a_claim(a_job(key="named.wav", model="cough@1"), ONE),
        a_claim(a_job(key="again.wav", again=True), ONE),
        a_claim(a_job(key="profile.wav", profile="legacy"), ONE, profile="legacy", profile_overridden=True),
        a_claim(a_job(key="coverage.wav"), ONE, coverage_overridden=True),
        a_claim(a_job(key="shadow.wav", model="cough@2"), TWO),
    ]
    for request in others:
        claim = store.claim(request)
        assert isinstance(claim, Claimed)
        assert claim.shadow is None, request.job.key


def test_a_later_attempt_and_a_redelivery_are_chosen_too(store: Store) -> None:
    shadowed(store)
    job = a_job()
    first = store.claim(a_claim(job, ONE))
    second = store.claim(a_claim(job, ONE))
    assert isinstance(first, Claimed)
    assert isinstance(second, Claimed)
    assert (second.number, second.shadow) == (2, "cough@2")
    assert store.complete(second, a_result())
    settled = store.claim(a_claim(job, ONE))
    assert settled == Settled(second.analysis_id, AnalysisState.SUCCEEDED, "cough@2")
    failed = a_job(key="failed.wav")
    fail(store, failed, ONE)
    answered = store.claim(a_claim(failed, ONE))
    assert isinstance(answered, Settled)
    assert answered.shadow is None


def test_a_stopped_shadow_gets_no_recordings(store: Store) -> None:
    shadowed(store)
    stopped = store.stop_shadow()
    assert stopped is not None
    assert (stopped.model, stopped.share, stopped.started_by) == ("cough@2", 1.0, "b@test")
    assert store.stop_shadow() is None
    assert store.shadow() is None
    claim = store.claim(a_claim(a_job(), ONE))
    assert isinstance(claim, Claimed)
    assert claim.shadow is None


def test_what_the_shadow_answers_is_shown_nowhere(store: Store, store_url: str) -> None:
    shadowed(store)
    job, broken = a_job(), a_job(key="b.wav")
    answer(store, job, ONE, 0.8)
    answer(store, broken, ONE, 0.8)
    before = (store.counts(), rows(store_url, "SELECT * FROM current ORDER BY key"))
    listed = list(store.results(ResultFilter()))

    hidden = answer(store, shadow_of(job), TWO, 0.1)
    fail(store, shadow_of(broken), TWO)
    refused = shadow_of(a_job(key="gone.wav"))
    store.refuse(a_refusal(refused, model=TWO))

    assert (store.counts(), rows(store_url, "SELECT * FROM current ORDER BY key")) == before
    assert list(store.results(ResultFilter())) == listed
    assert list(store.results(ResultFilter(model="cough@2"))) == []
    assert list(store.failures(FailureFilter())) == []
    assert [one.model for one in store.analyses_of_key(ObjectAddress("recordings", "a.wav"), 10)] == ["cough@1"]
    assert rows(store_url, "SELECT count(*) FROM analyses_newest WHERE shadow") == [(0,)]
    assert rows(store_url, "SELECT count(*) FROM job_answers WHERE model = 'cough@2'") == [(0,)]
    assert store.known("recordings", [("a.wav", "e1")], AnalysisCriteria(model="cough@2")) == {}
    assert rows(store_url, "SELECT count(*), bool_and(shadow) FROM analyses WHERE model_id = 2") == [(3, True)]
    pairs = "SELECT analysis_id, flipped FROM model_pairs WHERE model = 'cough@2'"
    assert rows(store_url, pairs) == [(hidden.analysis_id, True)]


def test_a_job_that_names_the_model_shows_its_answer(store: Store) -> None:
    shadowed(store)
    job = a_job()
    answer(store, job, ONE)
    hidden = answer(store, shadow_of(job), TWO)
    assert store.counts().cough == 1
    named = store.claim(a_claim(a_job(model="cough@2"), TWO))
    assert named == Settled(hidden.analysis_id, AnalysisState.SUCCEEDED)
    assert [one.model for one in store.results(ResultFilter(model="cough@2"))] == ["cough@2"]
    assert store.counts().cough == 2


def test_an_analysis_by_a_named_job_is_not_repeated_nor_hidden(store: Store, store_url: str) -> None:
    shadowed(store)
    shown = answer(store, a_job(model="cough@2"), TWO)
    job = a_job()
    answer(store, job, ONE)
    assert store.claim(a_claim(shadow_of(job), TWO)) == Settled(shown.analysis_id, AnalysisState.SUCCEEDED)
    assert rows(store_url, "SELECT count(*) FROM analyses WHERE shadow") == [(0,)]
    assert rows(store_url, "SELECT count(*) FROM job_answers") == [(2,)]


def test_an_activation_shows_the_results_and_stops_the_shadow(store: Store, store_url: str) -> None:
    shadowed(store)
    job, broken = a_job(), a_job(key="b.wav")
    answer(store, job, ONE, 0.8)
    answer(store, broken, ONE, 0.8)
    answer(store, shadow_of(job), TWO, 0.1)
    fail(store, shadow_of(broken), TWO)
    store.activate(label(TWO), activated_by="a@test")
    assert store.shadow() is None
    current = rows(store_url, "SELECT key, model, state, decision FROM current ORDER BY key")
    assert current == [("a.wav", "cough@2", "succeeded", False), ("b.wav", "cough@1", "succeeded", True)]
    assert list(store.failures(FailureFilter())) == []


def test_which_model_can_be_the_shadow(store: Store, store_url: str) -> None:
    for model in (ONE, TWO, THREE):
        store.register_model(model)
    with pytest.raises(ShadowRefused, match="nobody has chosen the active model: run `tussis models activate cough@3`"):
        store.start_shadow("cough@2", 0.1, started_by="b@test")
    store.activate("cough@1", activated_by="a@test", force=True)
    with pytest.raises(ShadowRefused, match="cough@1 is the active model"):
        store.start_shadow("cough@1", 0.1, started_by="b@test")
    with pytest.raises(ModelUnknown, match="cough@9"):
        store.start_shadow("cough@9", 0.1, started_by="b@test")
    execute(store_url, "UPDATE models SET last_served_at = now() - interval '1 hour' WHERE version = '3'")
    with pytest.raises(ShadowRefused, match="no worker serves cough@3"):
        store.start_shadow("cough@3", 0.1, started_by="b@test")
    assert store.shadow() is None
    assert store.start_shadow("cough@2", 0.1, started_by="b@test") is None
    replaced = store.start_shadow("cough@2", 0.2, started_by="c@test")
    assert replaced is not None
    assert replaced.share == 0.1
    now = store.shadow()
    assert now is not None
    assert (now.model, now.share, now.started_by) == ("cough@2", 0.2, "c@test")
    assert rows(store_url, "SELECT count(*), count(stopped_at) FROM model_shadows") == [(2, 1)]


def test_the_comparison(store: Store, store_url: str) -> None:
    assert store.shadow_comparison() is None
    shadowed(store, share=0.5)
    keys = [f"{number}.wav" for number in range(40)]
    chosen = [key for key in keys if position("recordings", key) < 0.5]
    assert len(chosen) > 6
    for key in keys:
        answer(store, a_job(key=key), ONE, 0.7)
    ended = [chosen.index(key) for key in chosen[:5]]
    for number, probability in zip(ended, (0.7, 0.72, 0.1, 0.2, 0.75), strict=True):
        answer(store, shadow_of(a_job(key=chosen[number])), TWO, probability)
    fail(store, shadow_of(a_job(key=chosen[5])), TWO)
    execute(store_url, "UPDATE analyses SET started_at = finished_at - (1 + model_id) * interval '1 second'")
    found = store.shadow_comparison()
    assert found is not None
    assert (found.model, found.active, found.share, found.stopped_at) == ("cough@2", "cough@1", 0.5, None)
    assert (found.chosen, found.compared, found.failed, found.active_failed) == (len(chosen), 5, 1, 0)
    assert found.waiting == len(chosen) - 6
    assert (found.to_cough, found.to_no_cough) == (0, 2)
    # The shifts are 0, 0.02, 0.6, 0.5 and 0.05. Between the two largest, the 95th percentile is at 0.8.
    assert (found.mean_shift, found.p95_shift, found.max_shift) == pytest.approx((1.17 / 5, 0.58, 0.6))
    assert (found.active_median_s, found.median_s) == pytest.approx((2, 3))
    assert abs(datetime.now(UTC) - found.started_at) < timedelta(minutes=10)
    store.stop_shadow()
    later = store.shadow_comparison()
    assert later is not None
    assert later.stopped_at is not None
    assert later.compared == 5
