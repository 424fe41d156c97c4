"""The views ``quality``, ``failures_by_class``, ``model_pairs`` and ``job_answers``."""

from __future__ import annotations

import uuid
from typing import Any

from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, execute, label, model_facts, rows
from tussis.shared.states import AttemptOutcome
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store


def answer(store: Store, model: ModelFacts, key: str, probability: float = 0.8, **changes: Any) -> int:
    """Store a result; the claim takes ``profile``, ``profile_overridden`` and ``again``. Returns the analysis."""
    job = a_job(key=key, model=label(model), again=changes.pop("again", False))
    request = {name: changes.pop(name) for name in ("profile", "profile_overridden", "coverage") if name in changes}
    claim = claimed(store.claim(a_claim(job, model, **request)))
    store.complete(claim, a_result(probability=probability, **changes))
    return claim.analysis_id


def test_a_silent_file_is_no_ordinary_no_cough(store: Store, store_url: str, model: ModelFacts) -> None:
    silence = {"events": (), "peak_dbfs": None, "rms_dbfs": None, "warnings": ("silent", "dc_offset")}
    answer(store, model, "silent.wav", 0.1, **silence)
    answer(store, model, "quiet.wav", 0.1, peak_dbfs=-55.0, warnings=("very_quiet",))
    answer(store, model, "good.wav", 0.1)
    answer(store, model, "old.wav", 0.1)
    execute(
        store_url, "UPDATE analyses SET warnings = NULL, peak_dbfs = NULL WHERE id = (SELECT max(id) FROM analyses)"
    )
    store.fail(claimed(store.claim(a_claim(a_job(key="picture.png"), model))), "not_audio", "a picture")

    found = rows(store_url, "SELECT key, decision, silent, warnings, peak_dbfs FROM quality ORDER BY analysis_id")

    assert found == [
        ("silent.wav", False, True, ["silent", "dc_offset"], None),
        ("quiet.wav", False, False, ["very_quiet"], -55.0),
        ("good.wav", False, False, [], -3.0),
        ("old.wav", False, None, None, None),
    ]


def test_failures_are_counted_by_class(store: Store, store_url: str, model: ModelFacts) -> None:
    answer(store, model, "good.wav")
    for key in ("a.png", "b.png", "c.png"):
        store.fail(claimed(store.claim(a_claim(a_job(key=key), model))), "not_audio", "a picture")
    store.refuse(a_refusal(a_job(key="gone.wav")))
    execute(store_url, "UPDATE analyses SET state = 'discarded' WHERE id = (SELECT max(id) - 1 FROM analyses)")

    found = rows(
        store_url,
        "SELECT error_class, failed, discarded, first_finished_at < last_finished_at, example_message, example_uri "
        "FROM failures_by_class ORDER BY 1",
    )

    assert found == [
        ("not_audio", 2, 1, True, "a picture", "s3://recordings/a.png"),
        ("object_missing", 1, 0, False, "no object at s3://recordings/gone.wav", "s3://recordings/gone.wav"),
    ]
    # The picture was replaced by a recording: its failure is no longer the answer.
    store.complete(claimed(store.claim(a_claim(a_job(key="a.png"), model, etag="e2"))), a_result())
    assert rows(store_url, "SELECT failed, discarded FROM failures_by_class ORDER BY error_class") == [(1, 1), (1, 0)]


def test_two_models_on_the_same_recordings(store: Store, store_url: str, model: ModelFacts) -> None:
    newer = model_facts(version="2", sha256="b" * 64, profile="legacy")
    for key, old, new in (("flips.wav", 0.60, 0.62), ("stays.wav", 0.9, 0.8)):
        answer(store, model, key, old)
        answer(store, newer, key, new, profile="legacy")
    answer(store, model, "only-old.wav")
    # These change no pair: another profile by request, another coverage, a failure, an open analysis.
    answer(store, model, "flips.wav", 0.1, profile="legacy", profile_overridden=True)
    answer(store, model, "stays.wav", 0.1, coverage="full")
    store.fail(claimed(store.claim(a_claim(a_job(key="only-old.wav"), newer, profile="legacy"))), "not_audio", "no")
    store.claim(a_claim(a_job(key="stays.wav", again=True), newer, profile="legacy"))

    found = rows(
        store_url,
        "SELECT key, model, other_model, profile, other_profile, bag_probability, other_bag_probability, decision, "
        "other_decision, flipped FROM model_pairs ORDER BY key, model",
    )

    one, other = ("cough@1", "cough@2", "documented", "legacy"), ("cough@2", "cough@1", "legacy", "documented")
    assert found == [
        ("flips.wav", *one, 0.60, 0.62, False, True, True),
        ("flips.wav", *other, 0.62, 0.60, True, False, True),
        ("stays.wav", *one, 0.9, 0.8, True, True, False),
        ("stays.wav", *other, 0.8, 0.9, True, True, False),
    ]


def test_a_pair_has_the_newest_result_of_each_model(store: Store, store_url: str, model: ModelFacts) -> None:
    newer = model_facts(version="2", sha256="b" * 64)
    answer(store, model, "a.wav", 0.1)
    answer(store, newer, "a.wav", 0.2)
    last = answer(store, model, "a.wav", 0.3, again=True)

    found = rows(
        store_url,
        "SELECT analysis_id, bag_probability, other_bag_probability FROM model_pairs WHERE model = 'cough@1'",
    )

    assert found == [(last, 0.3, 0.2)]


def test_each_job_has_its_answer(store: Store, store_url: str, model: ModelFacts) -> None:
    first, second, third = a_job(), a_job(), a_job(again=True)
    shared = claimed(store.claim(a_claim(first, model)))
    store.complete(shared, a_result(probability=0.9))
    store.claim(a_claim(second, model))  # already answered
    own = claimed(store.claim(a_claim(third, model)))
    unknown = str(uuid.uuid4())

    def answers() -> list[tuple[Any, ...]]:
        asked = [first.job_id, second.job_id, third.job_id, unknown]
        return rows(
            store_url,
            "SELECT state, decision, analysis_id FROM unnest(%s::uuid[]) WITH ORDINALITY AS asked (job_id, number) "
            "LEFT JOIN job_answers USING (job_id) ORDER BY number",
            asked,
        )

    # Right after `again`, the job has its own open analysis and not the older answer.
    old = ("succeeded", True, shared.analysis_id)
    assert answers() == [old, old, ("running", None, own.analysis_id), (None, None, None)]
    store.release(own, AttemptOutcome.TRANSIENT, "storage_unavailable", "503")
    assert answers()[2] == ("waiting", None, own.analysis_id)
    store.complete(claimed(store.claim(a_claim(third, model))), a_result(probability=0.1))
    assert answers() == [old, old, ("succeeded", False, own.analysis_id), (None, None, None)]


def test_a_job_whose_message_could_not_be_read_has_failed(store: Store, store_url: str, model: ModelFacts) -> None:
    ended, answered = str(uuid.uuid4()), a_job()
    store.complete(claimed(store.claim(a_claim(answered, model))), a_result())
    store.dead_letter("{1", ended, "malformed_message", "not JSON", ended_job=True)
    store.dead_letter("{2", ended, "unknown_message_version", "version 9", ended_job=True)
    execute(store_url, "UPDATE dead_letters SET last_received_at = now() - interval '1 h' WHERE raw = '{1'")
    # These are no answers: a copy of an answered job, a message that the ledger did not hold, an id that is no UUID.
    store.dead_letter("{3", answered.job_id, "malformed_message", "not JSON", ended_job=True)
    store.dead_letter("{4", str(uuid.uuid4()), "malformed_message", "not JSON")
    store.dead_letter("{5", "seven", "malformed_message", "not JSON", ended_job=True)

    found = rows(store_url, "SELECT job_id::text, state, uri, error_class, analysis_id FROM job_answers ORDER BY uri")

    assert [(job_id, state, error_class) for job_id, state, _, error_class, _ in found] == [
        (answered.job_id, "succeeded", None),
        (ended, "failed", "unknown_message_version"),
    ]
    assert [uri for _, _, uri, _, _ in found] == ["s3://recordings/a.wav", None]
