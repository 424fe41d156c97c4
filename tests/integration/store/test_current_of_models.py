"""The view ``current`` with several models and contents against the same rule in Python."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import psycopg
import pytest

from tests.support.store import execute, rows

#: Version -> the time at which the model was active, in hours. The last model never was.
ACTIVE_AT: dict[str, int | None] = {"1": 5, "2": 3, "3": 8, "4": None}
OF_THE_JOB = ("object_changed", "model_not_served", "job_moved")


@dataclass(frozen=True)
class Row:
    """An analysis, as much of it as the view needs. ``version`` None: no model was known."""

    id: int
    key: str
    etag: str
    version: str | None
    error_class: str | None
    finished_at: int


@pytest.fixture(scope="module")
def drawn(shared_store_url: str) -> Iterator[tuple[str, list[Row]]]:
    """A database with random analyses of 60 objects by four models, with up to three contents of an object."""
    random_ = random.Random(13)
    with psycopg.connect(shared_store_url) as connection:
        for version, hours in ACTIVE_AT.items():
            connection.execute(
                "INSERT INTO models (name, version, sha256, profile, threshold, provenance, active_at) VALUES "
                "('cough', %s, repeat(%s, 64), 'documented', 0.61, 'test', "
                "timestamptz '2026-11-01Z' + make_interval(hours => %s))",
                (version, version, hours),
            )
        yield shared_store_url, [insert(connection, random_) for _ in range(500)]


def insert(connection: psycopg.Connection, random_: random.Random) -> Row:
    key, etag = f"{random_.randrange(60)}.wav", f"e{random_.randrange(3)}"
    failed = random_.random() < 0.4
    error_class = random_.choice(["not_audio", *OF_THE_JOB]) if failed else None
    version: str | None = random_.choice([*ACTIVE_AT])
    if error_class == "model_not_served" or (failed and random_.random() < 0.2):
        version = None
    hours = random_.randrange(6)
    scores = (None,) * 9 if failed else (0.5, 0.0, False, 0.61, 1, 1, 2.0, False, "soundfile")
    [recording_id] = connection.execute(
        "INSERT INTO recordings (bucket, key, etag) VALUES ('recordings', %s, %s) "
        "ON CONFLICT (bucket, key, etag) DO UPDATE SET etag = excluded.etag RETURNING id",
        (key, etag),
    ).fetchone() or (0,)
    [analysis_id] = connection.execute(
        "INSERT INTO analyses (recording_id, model_id, profile, profile_overridden, coverage, forced_by, job_id, "
        "state, attempt_token, attempts, worker, device, enqueued_at, started_at, finished_at, error_class, "
        "error_message, bag_probability, bag_logit, decision, threshold, segments, segments_total, analyzed_s, "
        "truncated, decoder) VALUES (%s, (SELECT id FROM models WHERE version = %s), 'documented', false, 'head', %s, "
        "gen_random_uuid(), %s, gen_random_uuid(), 1, 'cpu@1', 'cpu', now(), now(), "
        "timestamptz '2026-11-01Z' + make_interval(hours => %s), "
        "%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
        (
            recording_id,
            version,
            str(uuid.uuid4()),
            "failed" if failed else "succeeded",
            hours,
            error_class,
            error_class,
            *scores,
        ),
    ).fetchone() or (0,)
    connection.commit()
    return Row(analysis_id, key, etag, version, error_class, hours)


def shown(drawn: list[Row], active_at: dict[str, int | None]) -> dict[str, int]:
    """The rule of the view: object -> the id of its analysis."""
    found = {}
    for key in {row.key for row in drawn}:
        of_object = [
            row for row in drawn if row.key == key and (row.version is None or active_at[row.version] is not None)
        ]
        if not of_object:
            continue
        newest = max(of_object, key=lambda row: (row.error_class not in OF_THE_JOB, row.finished_at, row.id))
        of_content = [row for row in of_object if row.etag == newest.etag]

        def rank(row: Row) -> tuple[bool, int, int, int]:
            # A failure without a model counts as one of the active model.
            active = max(at for at in active_at.values() if at) if row.version is None else active_at[row.version]
            assert active is not None
            return row.error_class not in OF_THE_JOB, active, row.finished_at, row.id

        found[key] = max(of_content, key=rank).id
    return found


def ids(url: str, condition: str = "true") -> dict[str, int]:
    return dict(rows(url, f"SELECT key, analysis_id FROM current WHERE {condition}"))


def test_the_view_follows_the_rule_whichever_model_is_active(drawn: tuple[str, list[Row]]) -> None:
    url, inserted = drawn
    first = shown(inserted, ACTIVE_AT)
    assert ids(url) == first
    assert rows(url, "SELECT count(*) FROM current") == [(len(first),)]
    seen = [first]
    active_at = dict(ACTIVE_AT)
    for hours, version in enumerate(("2", "1", "4"), start=9):
        active_at[version] = hours
        execute(
            url,
            "UPDATE models SET active_at = timestamptz '2026-11-01Z' + make_interval(hours => %s) WHERE version = %s",
            hours,
            version,
        )
        seen.append(shown(inserted, active_at))
        assert ids(url) == seen[-1]
        assert ids(url, "bucket = 'recordings' AND key LIKE '1%%'") == {
            key: shown_id for key, shown_id in seen[-1].items() if key.startswith("1")
        }
    assert all(one != other for one, other in pairwise(seen))
