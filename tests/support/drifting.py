"""Results of recordings that were made at a given time, written with SQL: a comparison needs hundreds of them."""

from __future__ import annotations

from typing import Any

import psycopg

from tests.support.store import execute

#: Column -> its expression of the number n of the recording. Every ten recordings have the same values.
FIELDS = {
    "bag_probability": "CASE WHEN n % 5 = 0 THEN 0.9 ELSE 0.02 + 0.1 * (n % 5) END",
    "rms_dbfs": "-31.4 + n % 10",
    "peak_dbfs": "-9.5 + n % 10 * 0.5",
    "dc_offset": "0.0003",
    "clipped_share": "0",
    "warnings": "ARRAY[]::text[]",
    "duration_s": "8.0 + n % 10",
    "codec": "'pcm_s16le'",
    "container": "'wav'",
    "rate_hz": "16000",
    "channels": "1",
    "metadata": "'{}'::jsonb",
    "model_id": "1",
}
_OF_RECORDING = ("duration_s", "codec", "container", "rate_hz", "channels", "metadata")


def add_model(url: str) -> None:
    """Add the active model cough@1."""
    execute(
        url,
        "INSERT INTO models (name, version, sha256, profile, threshold, provenance, active_at) "
        "VALUES ('cough', '1', repeat('a', 64), 'documented', 0.61, 'made for a test', now())",
    )


def add_results(url: str, count: int, made_at: str, **changes: str) -> None:
    """Add results of ``count`` new recordings. ``made_at`` and ``changes`` are expressions of the number n from 0."""
    fields = FIELDS | changes
    names = ", ".join(_OF_RECORDING)
    values = ", ".join(fields[name] for name in _OF_RECORDING)
    with psycopg.connect(url, autocommit=True) as connection:
        added: list[tuple[Any, ...]] = connection.execute(
            f"INSERT INTO recordings (bucket, key, etag, created_at, {names}) "
            f"SELECT 'b', gen_random_uuid()::text, 'e', {made_at}, {values} FROM generate_series(0, {count - 1}) AS n "
            "RETURNING id".encode()
        ).fetchall()
        first = min(added)[0]
        connection.execute(
            "INSERT INTO analyses (recording_id, profile, profile_overridden, coverage, job_id, state, attempt_token, "
            "attempts, worker, device, enqueued_at, started_at, finished_at, bag_logit, decision, threshold, segments, "
            "segments_total, analyzed_s, truncated, decoder, bag_probability, rms_dbfs, peak_dbfs, dc_offset, "
            "clipped_share, warnings, model_id) "
            "SELECT id, 'documented', false, 'head', gen_random_uuid(), 'succeeded', gen_random_uuid(), 1, 'cpu@1', "
            "'cpu', now(), now(), now(), 0, probability > 0.61, 0.61, 1, 1, 2, false, 'soundfile', "
            f"probability, {fields['rms_dbfs']}, {fields['peak_dbfs']}, {fields['dc_offset']}, "
            f"{fields['clipped_share']}, {fields['warnings']}, {fields['model_id']} "
            f"FROM recordings, LATERAL (SELECT id - {first} AS n) AS numbers, "
            f"LATERAL (SELECT {fields['bag_probability']} AS probability) AS answers WHERE id >= {first}".encode()
        )
