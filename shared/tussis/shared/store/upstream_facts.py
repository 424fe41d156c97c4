"""SQL expressions for the recommended metadata of a recording, as typed columns of the views.

Each expression reads ``recordings.metadata``. It is NULL if the name is absent or its value is one that the producer
refuses (:mod:`tussis.shared.recommended_metadata`); a worker stores such a value too. No expression raises an error.
"""

from __future__ import annotations

from typing import Final

from tussis.shared import recommended_metadata as names


def _time(name: str) -> str:
    """The time as ``timestamptz``.

    The pattern admits only texts that the cast can read, so no row makes a view fail. With an offset and with the year
    in front, the result does not depend on the settings ``TimeZone`` and ``DateStyle`` of the session.
    """
    text = f"recordings.metadata ->> '{name}'"
    return f"CASE WHEN {text} ~ '^({names.TIME_PATTERN})$' THEN ({text})::timestamptz END"


def _text(name: str) -> str:
    """The text, if its JSON value is a string."""
    text = f"recordings.metadata ->> '{name}'"
    return (
        f"CASE WHEN jsonb_typeof(recordings.metadata -> '{name}') = 'string' "
        f"AND length({text}) BETWEEN 1 AND {names.MAX_CHARACTERS} "
        f"AND {text} !~ '{names.CONTROL_PATTERN}' THEN {text} END"
    )


#: Start of the recording, ``timestamptz``. PostgreSQL rounds a fraction of a second to microseconds.
RECORDED_AT: Final = _time(names.RECORDED_AT)
#: Where the recording was made, ``text``.
SITE: Final = _text(names.SITE)
#: Who was recorded, ``text``.
SUBJECT: Final = _text(names.SUBJECT)

#: Name of the column -> its comment.
COMMENTS: Final = {
    names.RECORDED_AT: "start of the recording, from metadata recorded_at; null if it is absent or not valid",
    names.SITE: "place of the recording, from metadata site; null if it is absent or not valid",
    names.SUBJECT: "pseudonym of the person, from metadata subject; null if it is absent or not valid",
}
