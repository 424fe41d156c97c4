"""A migrated database per test, copied from a template, and functions that make records for the store."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from tests.support.servers import fresh_database
from tussis.shared.events import CoughEvent
from tussis.shared.forgetting import Target
from tussis.shared.messages import Job
from tussis.shared.store import forgotten, migrate
from tussis.shared.store.connection import connect_engine
from tussis.shared.store.records import (
    BagScores,
    Claimed,
    ClaimRequest,
    ModelFacts,
    RefusalRequest,
    Result,
    SegmentScores,
)
from tussis.shared.store.repository import Store
from tussis.shared.store.software import Software
from tussis.worker.embedded.servers import Servers

#: Seconds since the epoch: 2026-01-01T00:00:00Z. Earlier than any ``now()`` of the database.
ENQUEUED_AT = 1_767_225_600.0


@pytest.fixture(scope="session")
def migrated_template(servers: Servers) -> Iterator[str]:
    """The name of a migrated database without connections."""
    with fresh_database(servers, "template1") as url:
        migrate.upgrade(url)
        yield url.rsplit("/", 1)[1]


@pytest.fixture
def store_url(servers: Servers, migrated_template: str) -> Iterator[str]:
    """A migrated, empty database."""
    with fresh_database(servers, migrated_template) as url:
        yield url


@pytest.fixture(scope="module")
def shared_store_url(servers: Servers, migrated_template: str) -> Iterator[str]:
    """A migrated database for a whole module, for tests that read what a fixture of the module has written."""
    with fresh_database(servers, migrated_template) as url:
        yield url


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """A store on a migrated, empty database, for up to eight threads."""
    with Store.connect(store_url, pool_size=8) as store:
        yield store


@pytest.fixture
def model(store: Store) -> ModelFacts:
    """A registered model: cough@1, profile documented, threshold 0.61."""
    facts = model_facts()
    store.register_model(facts)
    return facts


def model_facts(**changes: Any) -> ModelFacts:
    """Return the facts of the model cough@1, with ``changes``."""
    facts = ModelFacts(
        name="cough",
        version="1",
        sha256="a" * 64,
        profile="documented",
        threshold=0.61,
        provenance="made for a test",
    )
    return replace(facts, **changes)


def forget(url: str, target: Target) -> None:
    """Write a tombstone, as `tussis forget` does first."""
    engine = connect_engine(url)
    try:
        forgotten.write(engine, forgotten.tombstones_of(engine, [target]), actor="me")
    finally:
        engine.dispose()


def label(model: ModelFacts) -> str:
    """Return name@version. A job with it is answered by this model, whichever model is active."""
    return f"{model.name}@{model.version}"


def a_job(**changes: Any) -> Job:
    """Return a job for s3://recordings/a.wav with a random id, with ``changes``."""
    fields: dict[str, Any] = {
        "job_id": str(uuid.uuid4()),
        "bucket": "recordings",
        "key": "a.wav",
        "enqueued_at": ENQUEUED_AT,
    }
    return Job(**(fields | changes))


def a_claim(job: Job, model: ModelFacts, **changes: Any) -> ClaimRequest:
    """Return a claim on the job, with ``changes``: etag e1, profile documented, 3 attempts, exclusive.

    The lease ends at once, as if the process had died.
    """
    fields: dict[str, Any] = {
        "job": job,
        "etag": "e1",
        "version_id": None,
        "size_bytes": 64_044,
        "model": model,
        "profile": "documented",
        "profile_overridden": False,
        "threshold": 0.61,
        "worker": "cpu-1@test",
        "device": "cpu",
        "max_attempts": 3,
        "exclusive": True,
        "lease_s": 0.0,
    }
    return ClaimRequest(**(fields | changes))


def a_refusal(job: Job, **changes: Any) -> RefusalRequest:
    """Return the refusal of a job whose object is missing, with ``changes``."""
    fields: dict[str, Any] = {
        "job": job,
        "error_class": "object_missing",
        "message": f"no object at {job.uri}",
        "worker": "cpu-1@test",
        "device": "cpu",
        "profile": "documented",
        "profile_overridden": False,
    }
    return RefusalRequest(**(fields | changes))


def one_bag(end_s: float, probability: float, logit: float, segments: int) -> BagScores:
    """Return the scores of the only bag of a recording."""
    return BagScores((0.0,), (end_s,), (probability,), (logit,), (segments,))


def a_result(count: int = 4, probability: float = 0.8, **changes: Any) -> Result:
    """Return a result of ``count`` segments half a second apart, the bag at ``probability``, with ``changes``."""
    starts = tuple(0.5 * index for index in range(count))
    fields: dict[str, Any] = {
        "size_bytes": 64_044,
        "duration_s": 0.5 * count,
        "rate_hz": 16_000,
        "channels": 1,
        "codec": "pcm_s16le",
        "container": "wav",
        "decoder": "soundfile",
        "bag_probability": probability,
        "bag_logit": 1.386,
        "decision": probability > 0.61,
        "threshold": 0.61,
        "bags": one_bag(
            changes.get("analyzed_s", 0.5 * count),
            changes.get("bag_probability", probability),
            changes.get("bag_logit", 1.386),
            count,
        ),
        "segments": SegmentScores(
            start_s=starts,
            end_s=tuple(start + 2.0 for start in starts),
            probability=tuple((index + 1) / (count + 1) for index in range(count)),
            logit=tuple(0.25 * index - 1.0 for index in range(count)),
        ),
        "events": (CoughEvent(start_s=0.5, end_s=1.5, peak=0.75, mean=0.5, bins=2),),
        "peak_dbfs": -3.0,
        "rms_dbfs": -20.0,
        "clipped_share": 0.0,
        "dc_offset": 0.001,
        "warnings": (),
        "segments_total": count,
        "analyzed_s": 0.5 * count,
        "truncated": False,
        "timings_ms": {"fetch": 12.5, "inference": 48.0},
    }
    return Result(**(fields | changes))


def some_software(**changes: Any) -> Software:
    """Return the software of a result, with ``changes``."""
    used = Software(
        tussis_version="0.1.0",
        onnxruntime_version="1.32.0",
        torch_version="2.11.0",
        torchaudio_version="2.11.0",
        decoder_library="libsndfile 1.2.2",
        provider="cpu",
        graph="original",
        processor="a processor (avx2)",
    )
    return replace(used, **changes)


def claimed(answer: object) -> Claimed:
    """Return the answer, which must be a claim."""
    assert isinstance(answer, Claimed), answer
    return answer


def refused(answer: object) -> int:
    """Return the id of the refused analysis. Fails when another attempt holds the analysis."""
    assert isinstance(answer, int), answer
    return answer


def rows(url: str, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Return all rows of a query, without the store's code."""
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode(), parameters).fetchall()


def execute(url: str, statement: str, *parameters: object) -> None:
    """Run a statement without the store's code. Without parameters, a percent sign is literal."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode(), parameters or None)
