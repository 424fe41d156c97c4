"""``tussis drift``: the table, JSON, metrics, the exit status and the errors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result
from prometheus_client.parser import text_string_to_metric_families

from tests.support.drifting import add_model, add_results
from tests.support.processes import ROOT
from tests.support.tables import code, table
from tussis.producer.cli import root

SINCE = ("--since", "2026-11-23", "--until", "2026-11-30")
THIS_WEEK = "timestamptz '2026-11-23Z' + n % 7 * interval '1 day'"
EARLIER = "timestamptz '2026-10-26Z' + n % 28 * interval '1 day'"
DEVICE = "jsonb_build_object('device', 'a \"' || n % 2 || '\"')"

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def filled(shared_store_url: str) -> str:
    """280 results before and 140 this week: another level, another codec, and no other change."""
    add_model(shared_store_url)
    add_results(shared_store_url, 280, EARLIER, metadata=DEVICE)
    codec = "CASE WHEN n % 10 < 6 THEN 'opus' ELSE 'pcm_s16le' END"
    add_results(shared_store_url, 140, THIS_WEEK, rms_dbfs="-44.4 + n % 10", codec=codec, metadata=DEVICE)
    add_results(shared_store_url, 1, "timestamptz '2026-11-24Z'", metadata="""'{"device": "new"}'""")
    return shared_store_url


@pytest.fixture
def run(filled: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("TUSSIS_DATABASE_URL", filled)
    return lambda *words: CliRunner().invoke(root, ["drift", *words])


def lines(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [re.sub(r"  +", "  ", line.strip()) for line in result.stdout.splitlines()]


def test_the_table_has_a_row_for_each_measure_the_largest_change_first(run: Run) -> None:
    told = lines(run(*SINCE))

    assert told[0] == "measure  change  PSI  by chance  KS  what has changed"
    assert [line.split("  ")[:2] for line in told[1:3]] == [["rms_dbfs", "large"], ["codec", "large"]]
    words = {line.split("  ")[0]: line.split("  ")[-1] for line in told[1:15]}
    # 70 of 141 levels are -40.4 or less. 84 of 141 results are opus.
    assert words["rms_dbfs"] == "median -27.4 -> -39.4 dBFS"
    assert words["codec"] == "opus 0 % -> 59.6 %"
    assert {line.split("  ")[1] for line in told[3:15]} == {"none"}
    assert told[15:] == [
        "Period: 2026-11-23 00:00 to 2026-11-30 00:00 UTC, 141 results. "
        "Reference: 2026-10-26 00:00 to 2026-11-23 00:00 UTC, 280.",
        "2 of 14 measures have changed.",
    ]


def test_each_device_is_compared_with_itself(run: Run) -> None:
    told = lines(run(*SINCE, "--by", "device", "--reference", "2026-10-26..2026-11-23"))

    assert told[0].startswith("device  measure")
    # 70 results of each device are too few.
    assert told[1:][-1] == (
        '0 of 3 groups have changed. Not compared (fewer than 100 results in a period): a "0", a "1", new.'
    )


def test_json_has_every_number(run: Run) -> None:
    found = json.loads(run(*SINCE, "--json").stdout)
    level = next(row for row in found["measures"] if row["measure"] == "rms_dbfs")

    assert found["since"] == "2026-11-23T00:00:00+00:00"
    assert found["reference_since"] == "2026-10-26T00:00:00+00:00"
    assert len(found["measures"]) == 14
    # Ten levels of one dB each lie in four or five bins; the two samples have no bin in common but one.
    assert level["change"] == "large"
    assert level["ks"] == pytest.approx(1, abs=0.3)
    assert (level["results"], level["reference_results"]) == (141, 280)
    assert level["median"] == pytest.approx(-39.4)
    codec = next(row for row in found["measures"] if row["measure"] == "codec")
    opus, wav, none = 84 / 141, 57 / 141, 0.5 / 280
    assert codec["psi"] == pytest.approx((opus - none) * math.log(opus / none) + (wav - 1) * math.log(wav))
    assert codec["expected_psi"] == pytest.approx(1 / 141 + 1 / 280)
    assert codec["ks"] is None


def test_metrics_are_those_of_the_document(run: Run) -> None:
    documented = {
        (code(row[0]), row[1], frozenset(code(label) for label in row[2].split(", ")))
        for row in table(ROOT / "docs" / "metrics.md", "drift metric")
    }
    text = run(*SINCE, "--by", "device", "--prometheus").stdout
    families = list(text_string_to_metric_families(text))

    assert {(family.name, family.type) for family in families} == {row[:2] for row in documented}
    samples = {
        (sample.name, sample.labels["group"], sample.labels["measure"]): sample.value
        for family in families
        for sample in family.samples
    }
    assert samples["tussis_drift_results", 'a "1"', "codec"] == 70
    assert samples["tussis_drift_reference_results", "new", "codec"] == 0
    assert not [key for key in samples if key[0] == "tussis_drift_psi"]
    families = list(text_string_to_metric_families(run(*SINCE, "--prometheus").stdout))
    for family in families:
        assert [set(sample.labels) for sample in family.samples] == [{"measure"}] * 14
    assert {row[2] for row in documented} == {frozenset({"measure", "group"})}


@pytest.mark.parametrize(("limit", "status"), [("0.25", 1), ("100", 0)])
def test_a_limit_gives_the_exit_status(run: Run, limit: str, status: int) -> None:
    told = run(*SINCE, "--max-psi", limit)

    assert told.exit_code == status
    assert told.stderr == ("tussis: drift: the PSI of rms_dbfs, codec is above 0.25\n" if status else "")


def test_nothing_to_compare_is_one_line(run: Run) -> None:
    assert lines(run("--since", "2020-01-01", "--until", "2020-01-08")) == [
        "Nothing to compare: no results for recordings of 2020-01-01 00:00 to 2020-01-08 00:00 UTC "
        "or of 2019-12-04 00:00 to 2020-01-01 00:00 UTC."
    ]
    told = lines(run(*SINCE, "--reference", "2020-01-01..2020-02-01"))
    assert told == ["Nothing to compare: no results for recordings of 2020-01-01 00:00 to 2020-02-01 00:00 UTC."]
    found: dict[str, Any] = json.loads(run("--since", "2020-01-01", "--until", "2020-01-08", "--json").stdout)
    assert found["measures"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--reference", "4 weeks"), "'4 weeks' is neither a length of time such as 28d nor FROM..TO"),
        (("--reference", "0d"), "'0d' is neither a length of time such as 28d nor FROM..TO"),
        (("--reference", "2026-11-01..soon"), "'soon' is not a time"),
        (("--reference", "2026-11-01..2026-10-01"), "has no length: give the earlier time first"),
        (("--reference", "2026-11-01..2026-11-24", *SINCE), "overlaps the period"),
        (("--reference", "900000d"), "--reference starts before the year 1"),
        (("--since", "2026-11-20", "--until", "2026-11-19"), "is not before --until"),
        (("--json", "--prometheus"), "--json and --prometheus are two formats"),
        (("--by", "a\udc80"), "has characters that metadata cannot have"),
        (("--max-psi", "-1"), "-1.0 is not in the range"),
    ],
)
def test_wrong_options_are_one_line(run: Run, words: tuple[str, ...], message: str) -> None:
    told = run(*words)

    assert told.exit_code == 2
    assert message in told.stderr.splitlines()[-1]
