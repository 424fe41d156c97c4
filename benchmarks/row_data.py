"""Rows as a deployment has them after fourteen months, made by PostgreSQL itself, without a worker."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from tussis.shared.store.records import ModelFacts

#: Months with rows, up to the present one.
MONTHS = 14
#: Segments of an analysis: four kinds of recordings. Of each ten, two have 4, four 17, three 32 and one 160 segments.
_SEGMENTS = "(ARRAY[4, 4, 17, 17, 17, 17, 32, 32, 32, 160])[1 + n %% 10]"
_MEAN_SEGMENTS = 32.8
#: Analyses of one transaction.
_CHUNK = 20_000

#: The models of the rows. Each tenth analysis is one of the second model, of the recording before.
MODELS = tuple(
    ModelFacts(
        name="cough",
        version=version,
        sha256=digit * 64,
        profile="documented",
        threshold=0.61,
        provenance="made for a measurement",
    )
    for version, digit in (("1", "a"), ("2", "b"))
)

_PARTITIONS = f"""
DO $$
DECLARE
    month timestamp;
BEGIN
    FOR month IN
        SELECT date_trunc('month', now() AT TIME ZONE 'UTC') - make_interval(months => number)
        FROM generate_series(1, {MONTHS - 1}) AS number
    LOOP
        EXECUTE format(
            'CREATE TABLE IF NOT EXISTS %I PARTITION OF segments FOR VALUES FROM (%L) TO (%L)',
            'segments_' || to_char(month, 'YYYY_MM'),
            to_char(month, 'YYYY-MM-DD') || ' 00:00:00+00',
            to_char(month + interval '1 month', 'YYYY-MM-DD') || ' 00:00:00+00'
        );
    END LOOP;
END
$$
"""

_MADE = f"""
CREATE TEMPORARY TABLE made ON COMMIT DROP AS
SELECT
    n,
    n - (n %% 10 = 9)::int AS recording,
    1 + (n %% 10 = 9)::int AS model,
    span.first + (now() - interval '1 minute' - span.first) * (n::float8 / %(analyses)s) AS created_at,
    {_SEGMENTS} AS segments,
    CASE WHEN random() < 0.2 THEN 0.61 + 0.38 * random() + 1e-6 ELSE 0.6 * random() END AS probability,
    n %% 40 = 7 AS failed
FROM
    generate_series(%(first)s::bigint, %(last)s::bigint) AS n,
    (SELECT date_trunc('month', now()) - interval '{MONTHS - 1} months' AS first) AS span
"""

_RECORDINGS = """
INSERT INTO recordings (
    id, bucket, key, etag, size_bytes, duration_s, rate_hz, channels, codec, container, decoder, metadata, created_at,
    updated_at
)
OVERRIDING SYSTEM VALUE
SELECT
    recording,
    'recordings',
    site || '/' || recording || '.wav',
    md5(recording::text),
    44 + 16000 * (segments + 3),
    0.5 * (segments + 3),
    16000,
    1,
    'pcm_s16le',
    'wav',
    'soundfile',
    jsonb_build_object(
        'site', site,
        'subject', 'p' || recording %% 5000,
        'recorded_at', to_char((created_at - interval '1 hour') AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
    ),
    created_at,
    created_at
FROM made, LATERAL (
    SELECT (ARRAY['north', 'east', 'west', 'centre', 'south'])[1 + recording %% 5]
) AS sites (site)
WHERE model = 1
"""

_ANALYSES = """
INSERT INTO analyses (
    id, created_at, recording_id, model_id, profile, profile_overridden, coverage, job_id, state, attempt_token,
    bag_probability, bag_logit, decision, threshold, segments, segments_total, analyzed_s, truncated, attempts,
    error_class, error_message, timings_ms, worker, device, decoder, enqueued_at, started_at, finished_at, events,
    cough_seconds, peak_dbfs, rms_dbfs, clipped_share, dc_offset, warnings
)
OVERRIDING SYSTEM VALUE
SELECT
    n,
    created_at,
    recording,
    model,
    'documented',
    false,
    'full',
    gen_random_uuid(),
    CASE WHEN failed THEN 'failed' ELSE 'succeeded' END,
    gen_random_uuid(),
    CASE WHEN NOT failed THEN probability END,
    CASE WHEN NOT failed THEN ln(probability / (1 - probability)) END,
    CASE WHEN NOT failed THEN probability > 0.61 END,
    0.61,
    CASE WHEN NOT failed THEN segments END,
    CASE WHEN NOT failed THEN segments END,
    CASE WHEN NOT failed THEN 0.5 * (segments + 3) END,
    CASE WHEN NOT failed THEN false END,
    1,
    CASE WHEN failed THEN 'not_audio' END,
    CASE WHEN failed THEN 'the object is a picture' END,
    '{"fetch": 3.7, "decode": 0.5, "preprocess": 8.4, "inference": 84.0}',
    'cpu@bench',
    'cpu',
    'soundfile',
    created_at - interval '5 s',
    created_at,
    created_at + interval '1 s',
    CASE WHEN NOT failed THEN CASE WHEN probability > 0.61 THEN 1 + n %% 4 ELSE 0 END END,
    CASE WHEN NOT failed THEN CASE WHEN probability > 0.61 THEN 1.5 * (1 + n %% 4) ELSE 0 END END,
    -3.2,
    -21.7 - n %% 30,
    CASE WHEN NOT failed THEN 0.0 END,
    0.0002,
    CASE WHEN NOT failed THEN CASE WHEN n %% 50 = 3 THEN ARRAY['very_quiet'] ELSE ARRAY[]::text[] END END
FROM made
"""

_JOBS = """
INSERT INTO jobs (job_id, analysis_id, enqueued_at, received_at)
SELECT job_id, id, enqueued_at, started_at FROM analyses WHERE id BETWEEN %(first)s AND %(last)s
"""

_ATTEMPTS = """
INSERT INTO attempts (
    analysis_id, number, token, worker, exclusive, started_at, ended_at, outcome, error_class, error_message
)
SELECT
    id, 1, attempt_token, worker, false, started_at, finished_at, state, error_class, error_message
FROM analyses
WHERE id BETWEEN %(first)s AND %(last)s
"""

_BAGS = """
INSERT INTO bags (analysis_id, bag_index, start_s, end_s, probability, logit, segments)
SELECT
    n,
    bag,
    16.0 * bag,
    16.0 * bag + 0.5 * (least(32, segments - 32 * bag) + 3),
    CASE WHEN bag = 0 THEN probability ELSE probability * 0.9 END,
    ln(probability / (1 - probability)),
    least(32, segments - 32 * bag)
FROM made, generate_series(0, (segments - 1) / 32) AS bag
WHERE NOT failed
"""

_SEGMENT_ROWS = """
INSERT INTO segments (
    analysis_id, bag_index, segment_index, analysis_created_at, start_s, end_s, probability, logit
)
SELECT n, number / 32, number %% 32, created_at, 0.5 * number, 0.5 * number + 2, scores.p, ln(scores.p / (1 - scores.p))
FROM made, generate_series(0, segments - 1) AS number, LATERAL (
    SELECT 0.001 + 0.998 * probability * (number * 37 %% 100) / 100.0
) AS scores (p)
WHERE NOT failed
"""

_EVENTS = """
INSERT INTO events (analysis_id, event_index, start_s, end_s, peak, mean, bins)
SELECT n, number, 2.0 * number, 2.0 * number + 1.5, probability, probability * 0.8, 3
FROM made, generate_series(0, n %% 4) AS number
WHERE NOT failed AND probability > 0.61
"""


def fill(url: str, rows: int, say: Callable[[str], None]) -> int:
    """Fill an empty, migrated database with about ``rows`` segments; returns the number of analyses.

    The role must be a superuser: the foreign keys of the rows are not checked.
    """
    analyses = max(round(rows / _MEAN_SEGMENTS), 100)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_PARTITIONS)
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET session_replication_role = replica")
        connection.execute("SELECT setseed(0.5)")
        for first in range(1, analyses + 1, _CHUNK):
            last = min(first + _CHUNK - 1, analyses)
            values = {"first": first, "last": last, "analyses": analyses}
            with connection.transaction():
                for statement in (_MADE, _RECORDINGS, _ANALYSES, _JOBS, _ATTEMPTS, _BAGS, _SEGMENT_ROWS, _EVENTS):
                    connection.execute(statement.encode(), values)
            say(f"{last:,} of {analyses:,} analyses")
        for table in ("recordings", "analyses"):
            connection.execute(
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))".encode()
            )
        say("VACUUM ANALYZE")
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
    return analyses
