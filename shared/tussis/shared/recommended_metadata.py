"""The recommended names of metadata, and the check of their values.

The producer checks the values before it sends a job. A worker does not: it analyses a recording whatever its metadata
is, and stores the metadata as sent. The store's SQL is made from the same patterns, so that it reads every value that
the producer accepts (:mod:`tussis.shared.store.upstream_facts`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from tussis.shared.errors import InvalidJob
from tussis.shared.uris import shown

#: The start of the recording, as an ISO 8601 time with an offset from UTC.
RECORDED_AT: Final = "recorded_at"
#: Where the recording was made.
SITE: Final = "site"
#: Who was recorded: a pseudonym, not the name of a person.
SUBJECT: Final = "subject"

#: The names whose value is a text.
TEXT_NAMES: Final = (SITE, SUBJECT)
#: Maximum number of characters of such a text.
MAX_CHARACTERS: Final = 200

# Python and PostgreSQL both use these patterns. "\d" and "$" differ between the two, and SQLAlchemy would read a part
# of "(?:19" as a parameter, so the patterns have none of these. The dates are complete: a day that does not exist
# (2026-02-30) does not match.
_YEAR = "(19[0-9][0-9]|2[01][0-9][0-9]|2200)"
_LEAP_YEAR = "((19|2[01])(0[48]|[2468][048]|[13579][26])|2000)"
_DAY_OF_ANY_YEAR = (
    "((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)"  # February has 28 days
)
_TIME = "([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,9})?)?"
_OFFSET = "(Z|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?)"
#: An ISO 8601 time with an offset, from the year 1900 to 2200. PostgreSQL can read every match.
TIME_PATTERN: Final = f"({_YEAR}-{_DAY_OF_ANY_YEAR}|{_LEAP_YEAR}-02-29)[T ]{_TIME}{_OFFSET}"
#: A control character (C0, DEL, C1).
CONTROL_PATTERN: Final = r"[\u0001-\u001f\u007f-\u009f]"

_IS_TIME = re.compile(TIME_PATTERN)
_HAS_CONTROL = re.compile(CONTROL_PATTERN)


def check_recommended(metadata: Mapping[str, Any]) -> None:
    """Raise :class:`InvalidJob` if a recommended name has a wrong value. An absent value and None are right.

    :class:`tussis.shared.messages.Job` also refuses NUL in any metadata.
    """
    moment = metadata.get(RECORDED_AT)
    if moment is not None and not (isinstance(moment, str) and _IS_TIME.fullmatch(moment)):
        raise InvalidJob(_wrong_time(moment))
    for name in TEXT_NAMES:
        text = metadata.get(name)
        if text is not None and not (isinstance(text, str) and _is_short_text(text)):
            raise InvalidJob(
                f"metadata {name} must be a string of 1 to {MAX_CHARACTERS} characters without control characters, "
                f"not {shown(text)}"
            )


def _is_short_text(text: str) -> bool:
    return 1 <= len(text) <= MAX_CHARACTERS and not _HAS_CONTROL.search(text)


def _wrong_time(moment: object) -> str:
    if isinstance(moment, str) and _IS_TIME.fullmatch(moment + "Z"):
        return (
            f"metadata {RECORDED_AT} has no offset from UTC: {shown(moment)}: without it the time differs between time "
            f"zones: write {moment}Z if it is in UTC, or the local offset, such as {moment}+01:00"
        )
    return (
        f"metadata {RECORDED_AT} must be an ISO 8601 time with an offset from UTC and a year from 1900 to 2200, for "
        f"example 2026-11-22T14:30:05+01:00, not {shown(moment)}"
    )
