"""The rule of cough events (``tussis.shared.events``) as SQL, for a threshold other than that of the stored events."""

from __future__ import annotations

from typing import Final

from tussis.shared.dsp.constants import MAX_SEGMENTS
from tussis.shared.events import BIN_S, BINS_A_SEGMENT

#: The cough events of one succeeded analysis, in order of time, from its segments. Parameters: ``analysis_id`` and
#: ``threshold``, the number above which a bin is cough. Columns: event_index, start_s, end_s, peak, mean and bins,
#: equal to those of ``find_events`` (mean: within 1e-12).
#:
#: Bin i and the segment with index i over all bags start at the same time. The last segment covers three more bins, for
#: which ``covered`` has rows without a probability: ``min`` ignores them.
EVENTS: Final = f"""
WITH analysis AS (
    SELECT analyses.id, analyses.created_at, analyses.segments, recordings.duration_s
    FROM analyses
    JOIN recordings ON recordings.id = analyses.recording_id
    WHERE analyses.id = %(analysis_id)s
),
covered AS (
    SELECT
        analysis.duration_s,
        {MAX_SEGMENTS} * segments.bag_index + segments.segment_index AS bin,
        segments.probability
    FROM analysis
    JOIN segments ON segments.analysis_id = analysis.id AND segments.analysis_created_at = analysis.created_at
    UNION ALL
    SELECT analysis.duration_s, analysis.segments + extra, NULL
    FROM analysis, generate_series(0, {BINS_A_SEGMENT - 2}) AS extra
),
bins AS (
    SELECT
        duration_s,
        bin,
        min(probability) OVER (ORDER BY bin ROWS BETWEEN {BINS_A_SEGMENT - 1} PRECEDING AND CURRENT ROW) AS probability
    FROM covered
    WHERE {BIN_S} * bin < duration_s
),
cough AS (
    SELECT *, bin - row_number() OVER (ORDER BY bin) AS run
    FROM bins
    WHERE probability > %(threshold)s
)
SELECT
    row_number() OVER (ORDER BY min(bin)) - 1 AS event_index,
    ({BIN_S} * min(bin))::double precision AS start_s,
    least({BIN_S} * (max(bin) + 1), duration_s)::double precision AS end_s,
    max(probability) AS peak,
    avg(probability) AS mean,
    count(*) AS bins
FROM cough
GROUP BY run, duration_s
ORDER BY start_s
"""
