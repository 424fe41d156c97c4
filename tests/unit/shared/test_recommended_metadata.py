"""The recommended names of metadata: what the producer accepts, and what it says about other values."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.moments import MOMENTS
from tussis.shared.errors import InvalidJob
from tussis.shared.recommended_metadata import RECORDED_AT, SITE, SUBJECT, check_recommended


def refusal(metadata: dict[str, Any]) -> str:
    """Return the message of the refusal."""
    with pytest.raises(InvalidJob) as refused:
        check_recommended(metadata)
    message = str(refused.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"other": [1, {"recorded_at": "yesterday"}]},
        {RECORDED_AT: None, SITE: None, SUBJECT: None},
        {SITE: "n", SUBJECT: "é" * 200},
        {SITE: "Süd 3, Raum 'B'", SUBJECT: "P-0017"},
    ],
)
def test_absent_null_and_right_values_are_accepted(metadata: dict[str, Any]) -> None:
    check_recommended(metadata)


@pytest.mark.parametrize(
    "moment",
    [
        "2026-11-22T14:30:05+01:00",
        "2026-11-22T14:30:05Z",
        "2026-11-22T14:30Z",
        "2026-11-22 14:30:05.123456+00:00",
        "2026-11-22T14:30:05.123456789-1130",
        "2026-11-22T14:30:05.1+05",
        "1900-01-01T00:00Z",
        "2200-12-31T23:59:59+14:00",
        "2024-02-29T00:00Z",
        "2000-02-29T00:00Z",
    ],
)
def test_times_with_an_offset_are_accepted(moment: str) -> None:
    check_recommended({RECORDED_AT: moment})


@given(
    st.timedeltas(timedelta(0), timedelta(days=109_937)),
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_the_isoformat_of_every_aware_datetime_is_accepted(after: timedelta, zone: timezone) -> None:
    moment = datetime(1900, 1, 1, tzinfo=zone) + after

    check_recommended({RECORDED_AT: moment.isoformat()})
    check_recommended({RECORDED_AT: str(moment)})


@given(MOMENTS)
def test_every_time_of_the_documented_form_is_accepted(case: tuple[str, datetime]) -> None:
    check_recommended({RECORDED_AT: case[0]})


@pytest.mark.parametrize("moment", ["2026-11-22T14:30:05", "2026-11-22 14:30", "2026-11-22T14:30:05.123"])
def test_a_time_without_an_offset_is_refused_with_the_reason(moment: str) -> None:
    message = refusal({RECORDED_AT: moment})

    assert f"metadata recorded_at has no offset from UTC: '{moment}'" in message
    assert "differs between time zones" in message
    assert f"write {moment}Z if it is in UTC" in message
    check_recommended({RECORDED_AT: f"{moment}Z"})
    check_recommended({RECORDED_AT: f"{moment}+01:00"})


@pytest.mark.parametrize(
    "moment",
    [
        "",
        "yesterday",
        "2026-11-22",
        "2026-11-22Z",
        "22.11.2026 14:30+01:00",
        "2026-02-30T00:00Z",
        "2025-02-29T00:00Z",
        "1900-02-29T00:00Z",
        "2100-02-29T00:00Z",
        "2200-02-29T00:00Z",
        "2026-04-31T00:00Z",
        "2026-13-01T00:00Z",
        "2026-00-01T00:00Z",
        "2026-01-00T00:00Z",
        "2026-11-22T24:00Z",
        "2026-11-22T14:60Z",
        "2026-11-22T14:30:60Z",
        "2026-11-22T14:30:05.Z",
        "2026-11-22T14:30:05.1234567890Z",
        "2026-11-22T14:30:05+15:00",
        "2026-11-22T14:30:05+01:60",
        "2026-11-22T14:30:05+01:00:30",
        "2026-11-22T14:30:05 Europe/Berlin",
        "1899-12-31T23:59:59Z",
        "2201-01-01T00:00Z",
        "02026-11-22T14:30Z",
        "20261122T143005Z",
        "2026-11-22T14:30Z\n",
        " 2026-11-22T14:30Z",
        "\uff12\uff10\uff12\uff16-11-22T14:30Z",
        1_795_357_805,
        1_795_357_805.5,
        True,
        ["2026-11-22T14:30Z"],
        {"at": "2026-11-22T14:30Z"},
    ],
)
def test_any_other_time_is_refused_with_an_example(moment: object) -> None:
    message = refusal({RECORDED_AT: moment})

    assert message.startswith(
        "metadata recorded_at must be an ISO 8601 time with an offset from UTC and a year from 1900"
    )
    assert "2026-11-22T14:30:05+01:00" in message
    assert repr(moment)[:70] in message


@pytest.mark.parametrize("name", [SITE, SUBJECT])
@pytest.mark.parametrize("text", ["", "é" * 201, "a\nb", "\t", "\x7f", "\x85", "\x1b[31m", 7, False, ["north"], {}])
def test_any_other_text_is_refused(name: str, text: object) -> None:
    assert refusal({name: text}).startswith(
        f"metadata {name} must be a string of 1 to 200 characters without control characters, not "
    )


@given(st.dictionaries(st.sampled_from([RECORDED_AT, SITE, SUBJECT]), st.text() | st.integers() | st.none()))
@example({RECORDED_AT: "2026-11-22T14:30"})
def test_no_value_raises_another_error(metadata: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidJob):
        check_recommended(metadata)


def test_an_example_of_the_message_is_itself_accepted() -> None:
    check_recommended({RECORDED_AT: refusal({RECORDED_AT: "x"}).split("for example ")[1].split(",")[0]})


def test_it_loads_no_large_package() -> None:
    code = (
        "import sys, tussis.shared.recommended_metadata; "
        "print({'numpy', 'sqlalchemy', 'redis', 'boto3', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"


def test_now_is_accepted() -> None:
    check_recommended({RECORDED_AT: datetime.now(UTC).isoformat()})
