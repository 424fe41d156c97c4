"""The view ``drift_by_week``, and the distributions of two periods."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.drifting import add_model, add_results
from tests.support.processes import ROOT
from tests.support.store import execute, rows
from tussis.shared.drift import LARGE, psi
from tussis.shared.store.drift import MEASURES, DriftGroup, Period
from tussis.shared.store.repository import Store
from tussis.shared.store.views.drift import CATEGORIES, EDGES, NUMBERS
from tussis.worker.audio.quality import QualityWarning
from tussis.worker.cli.drift_rows import bin_words

MONDAY = datetime(2026, 11, 23, tzinfo=UTC)
WEEK = Period(MONDAY, MONDAY + timedelta(days=7))
BEFORE = Period(MONDAY - timedelta(days=28), MONDAY)
#: In the week, and in the four weeks before: seven recordings a day.
THIS_WEEK = "timestamptz '2026-11-23Z' + n % 7 * interval '1 day'"
EARLIER = "timestamptz '2026-10-26Z' + n % 28 * interval '1 day'"


@pytest.fixture
def url(store_url: str) -> str:
    add_model(store_url)
    return store_url


def only(groups: list[DriftGroup]) -> DriftGroup:
    [group] = groups
    return group


def changed(group: DriftGroup) -> dict[str, float]:
    """Measure -> PSI, for each measure with any change."""
    found = {name: psi(group.period[name].counts, group.reference[name].counts) for name in MEASURES}
    return {name: value for name, value in found.items() if value > 1e-12}


def test_a_level_that_has_shifted_shows_and_nothing_else(store: Store, url: str) -> None:
    add_results(url, 280, EARLIER)
    add_results(url, 140, THIS_WEEK, rms_dbfs="-44.4 + n % 10")

    group = only(store.drift(WEEK, BEFORE))

    assert changed(group).keys() == {"rms_dbfs"}
    assert changed(group)["rms_dbfs"] > LARGE
    # percentile_disc takes the fifth of ten values.
    assert (group.reference["rms_dbfs"].median, group.period["rms_dbfs"].median) == pytest.approx((-27.4, -40.4))


def test_two_random_halves_of_one_period_are_alike(store: Store, url: str) -> None:
    for made_at in (EARLIER, THIS_WEEK):
        add_results(
            url,
            1000,
            made_at,
            bag_probability="random() + 0 * n",  # with n, there is one value for each result
            rms_dbfs="-60 + 50 * random()",
            peak_dbfs="-20 + 20 * random()",
            dc_offset="0.02 * random()",
            duration_s="1 + 20 * random()",
            codec="CASE WHEN random() < 0.3 THEN 'opus' ELSE 'mp3' END",
        )

    assert {name: value for name, value in changed(only(store.drift(WEEK, BEFORE))).items() if value > 0.1} == {}


def test_a_new_codec_shows(store: Store, url: str) -> None:
    add_results(url, 280, EARLIER)
    add_results(url, 140, THIS_WEEK, codec="CASE WHEN n % 10 < 6 THEN 'opus' ELSE 'pcm_s16le' END")

    group = only(store.drift(WEEK, BEFORE))

    assert changed(group).keys() == {"codec"}
    assert group.period["codec"].counts == {"opus": 84, "pcm_s16le": 56}
    assert group.reference["codec"].counts == {"pcm_s16le": 280}


def test_silence_is_the_lowest_level_and_old_rows_have_none(store: Store, url: str) -> None:
    add_results(url, 3, THIS_WEEK, rms_dbfs="NULL", peak_dbfs="NULL", warnings="ARRAY['silent', 'dc_offset']")
    unmeasured = dict.fromkeys(("rms_dbfs", "peak_dbfs", "dc_offset", "clipped_share", "warnings"), "NULL")
    add_results(url, 2, THIS_WEEK, **unmeasured)

    group = only(store.drift(WEEK, BEFORE))

    assert group.period["rms_dbfs"].counts == group.period["peak_dbfs"].counts == {0: 3}
    assert group.period["rms_dbfs"].median == float("-inf")
    assert group.period["warnings"].counts == {"silent, dc_offset": 3}
    assert group.period["dc_offset"].counts == {bin_index("dc_offset", 0.0003): 3}
    assert group.period["decision"].counts == {"cough": 2, "no cough": 3}
    assert group.reference["rms_dbfs"].counts == {}
    assert group.reference["rms_dbfs"].median is None


def bin_index(measure: str, value: float) -> int:
    return sum(edge <= value for edge in EDGES[measure])


def test_each_value_of_the_metadata_is_a_group(store: Store, url: str) -> None:
    add_results(url, 30, EARLIER, metadata="jsonb_build_object('device', 'mic ' || n % 3)")
    add_results(url, 20, THIS_WEEK, metadata="jsonb_build_object('device', 7)")
    add_results(url, 9, THIS_WEEK, metadata="jsonb_build_object('device', 'mic 1')")
    add_results(url, 1, THIS_WEEK)

    groups = store.drift(WEEK, BEFORE, by="device", groups=4)

    sizes = {one.name: (one.period["decision"].results, one.reference["decision"].results) for one in groups}
    # The values with the most results in the period. Of equal ones, that with the larger reference, then by name.
    assert sizes == {"7": (20, 0), "mic 1": (9, 10), "": (1, 0), "mic 0": (0, 10)}


def test_the_time_is_that_of_the_recording(store: Store, url: str) -> None:
    add_results(url, 1, "timestamptz '2026-11-29 23:59:59.9Z'")
    add_results(url, 2, "timestamptz '2026-11-30Z'")  # the end is not part of the period
    add_results(url, 4, "now()", metadata="""'{"recorded_at": "2026-11-23T01:00:00+01:00"}'""")
    add_results(url, 8, "timestamptz '2026-11-24Z'", metadata="""'{"recorded_at": "1970-01-01T00:00:00Z"}'""")
    # Analyses that are done again later do not move the recordings.
    execute(url, "UPDATE analyses SET created_at = now() + interval '1 day', finished_at = now() + interval '1 day'")

    group = only(store.drift(WEEK, BEFORE))

    assert group.period["decision"].results == 5
    assert weeks(url) == {"1969-12-29": 8, "2026-11-23": 5, "2026-11-30": 2}


def weeks(url: str) -> dict[str, int]:
    found = rows(
        url, "SELECT week::text, sum(results)::int FROM drift_by_week WHERE measure = 'decision' GROUP BY week"
    )
    return dict(found)


def test_only_results_that_analysts_see_are_counted(store: Store, url: str) -> None:
    add_results(url, 5, THIS_WEEK)
    execute(url, "UPDATE analyses SET profile_overridden = true WHERE id = 1")
    execute(
        url,
        "UPDATE analyses SET state = 'failed', error_class = 'empty', error_message = 'no bytes', decision = NULL, "
        "bag_probability = NULL, bag_logit = NULL, segments = NULL, segments_total = NULL, analyzed_s = NULL, "
        "truncated = NULL WHERE id = 2",
    )

    assert only(store.drift(WEEK, BEFORE)).period["decision"].results == 3
    assert weeks(url) == {"2026-11-23": 3}


def test_the_view_counts_the_same_bins(store: Store, url: str) -> None:
    """The sum over sites and models is the distribution of the period, and the bins have the limits of the code."""
    add_results(
        url,
        200,
        THIS_WEEK,
        rms_dbfs="CASE WHEN n = 3 THEN NULL ELSE -100 + n * 0.6 END",
        peak_dbfs="n * 0.03 - 3",
        dc_offset="0.0001 * n",
        clipped_share="CASE WHEN n < 100 THEN 0 ELSE n * n / 400000.0 END",
        duration_s="n * 0.25",
        bag_probability="n / 199.0",
        warnings="CASE WHEN n % 3 = 0 THEN ARRAY['clipped'] ELSE ARRAY[]::text[] END",
        metadata="CASE WHEN n % 2 = 0 THEN '{}' ELSE '{\"site\": \"north\"}' END::jsonb",
    )
    group = only(store.drift(WEEK, BEFORE))
    found: dict[str, dict[Any, int]] = {}
    for measure, bin_from, bin_to, category, count in rows(
        url,
        "SELECT measure, bin_from, bin_to, category, sum(results)::int FROM drift_by_week "
        "WHERE week = '2026-11-23' GROUP BY 1, 2, 3, 4",
    ):
        key = category
        if measure in EDGES:
            edges = (None, *EDGES[measure], None)
            key = 0 if bin_from is None else edges.index(bin_from)
            assert bin_to == edges[key + 1]
        found.setdefault(measure, {})[key] = count

    assert found.keys() == {*NUMBERS, *CATEGORIES}
    assert found == {name: group.period[name].counts for name in found}
    assert rows(url, "SELECT DISTINCT site, model FROM drift_by_week ORDER BY 1") == [
        ("north", "cough@1"),
        (None, "cough@1"),
    ]
    # Computed from the definition: rms_dbfs is -100 + 0.6 n, one of them silent.
    levels = [float("-inf") if n == 3 else -100 + n * 0.6 for n in range(200)]
    assert found["rms_dbfs"] == {one: sum(bin_index("rms_dbfs", level) == one for level in levels) for one in range(30)}


def test_the_query_of_the_document_has_the_share_of_each_bin(store: Store, url: str) -> None:
    add_results(url, 10, THIS_WEEK)
    query = (ROOT / "docs" / "drift.md").read_text().split("```sql\n")[1].split("```")[0]

    # The levels are -31.4 to -22.4, one of each dB.
    assert [tuple(map(float, row[1:])) for row in rows(url, query)] == [
        (-33, -30, 2, 0.2),
        (-30, -27, 3, 0.3),
        (-27, -24, 3, 0.3),
        (-24, -21, 2, 0.2),
    ]


def test_a_period_is_read_by_the_index(store: Store, url: str) -> None:
    add_results(url, 3000, "timestamptz '2026-11-30Z' - n * interval '1 hour'")
    execute(url, "ANALYZE")
    plan = rows(
        url,
        "EXPLAIN SELECT count(*) FROM current JOIN recordings ON recordings.id = current.recording_id "
        "WHERE coalesce(recordings.recorded_at, recordings.created_at) >= '2026-11-29Z' AND "
        "coalesce(recordings.recorded_at, recordings.created_at) < '2026-11-30Z'",
    )
    assert any("recordings_made_at_idx" in line for (line,) in plan), plan


def test_the_warnings_and_measures_have_words() -> None:
    assert bin_words("rms_dbfs", 0) == "below -84 dBFS"
    assert bin_words("rms_dbfs", bin_index("rms_dbfs", -30)) == "-30 to -27 dBFS"
    assert bin_words("peak_dbfs", bin_index("peak_dbfs", 0)) == "0 dBFS or more"
    assert [bin_words("clipped_share", one) for one in (0, 1, 4, 6)] == [
        "no clipping",
        "0 to 0.001 %",
        "0.1 to 1 %",
        "10 % or more",
    ]
    # The limit of the warning is a limit of the bins.
    assert 0.001 in EDGES["clipped_share"]
    assert 0.02 in EDGES["dc_offset"]
    assert QualityWarning.CLIPPED.value == "clipped"
