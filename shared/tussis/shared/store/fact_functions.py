"""Functions of the database that read the recommended metadata, for the generated columns of ``recordings``.

The result depends on the metadata alone, because a time without an offset is no time
(:mod:`tussis.shared.store.upstream_facts`). So the functions are immutable, although PostgreSQL calls every cast to
``timestamptz`` stable.
"""

from __future__ import annotations

from typing import Final

from tussis.shared import recommended_metadata as names
from tussis.shared.store import upstream_facts


def _function(name: str, kind: str, expression: str) -> str:
    of_argument = expression.replace("recordings.metadata", "metadata")
    return (
        f"CREATE FUNCTION tussis_{name}(metadata jsonb) RETURNS {kind} LANGUAGE sql IMMUTABLE PARALLEL SAFE "
        f"AS $function$ SELECT {of_argument} $function$"
    )


#: The statements that create the functions ``tussis_recorded_at``, ``tussis_site`` and ``tussis_subject``.
FUNCTIONS: Final = (
    _function(names.RECORDED_AT, "timestamptz", upstream_facts.RECORDED_AT),
    _function(names.SITE, "text", upstream_facts.SITE),
    _function(names.SUBJECT, "text", upstream_facts.SUBJECT),
)
