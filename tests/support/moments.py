"""Texts of times that the producer accepts as ``recorded_at``, with the time that each is."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import strategies as st


@st.composite
def _moments(draw: st.DrawFn) -> tuple[str, datetime]:
    year = draw(st.integers(1900, 2200))
    month = draw(st.integers(1, 12))
    last = calendar.monthrange(year, month)[1]
    day = draw(st.integers(1, last) | st.just(last))
    hour, minute, second = draw(st.integers(0, 23)), draw(st.integers(0, 59)), draw(st.integers(0, 59))
    digits = draw(st.text("0123456789", min_size=0, max_size=9))
    with_seconds = bool(digits) or draw(st.booleans())
    hours, minutes = draw(st.integers(0, 14)), draw(st.integers(0, 59))
    sign = draw(st.sampled_from("+-"))
    shape = draw(st.sampled_from(["Z", "+hh", "+hhmm", "+hh:mm"]))
    if shape == "Z":
        hours, minutes, offset = 0, 0, "Z"
    elif shape == "+hh":
        minutes, offset = 0, f"{sign}{hours:02}"
    else:
        offset = f"{sign}{hours:02}{':' if ':' in shape else ''}{minutes:02}"
    text = f"{year}-{month:02}-{day:02}{draw(st.sampled_from('T '))}{hour:02}:{minute:02}"
    text += f":{second:02}" if with_seconds else ""
    text += f".{digits}" if digits else ""
    east = timedelta(hours=hours, minutes=minutes) * (-1 if sign == "-" else 1)
    moment = datetime(year, month, day, hour, minute, second if with_seconds else 0, tzinfo=timezone(east))
    # Beyond microseconds the fraction is rounded, so a test compares with a tolerance of one.
    moment = moment.astimezone(UTC) + timedelta(microseconds=int(digits.ljust(6, "0")[:6]) if digits else 0)
    return text + offset, moment


#: (text, time in UTC). A fraction beyond microseconds is cut.
MOMENTS = _moments()
