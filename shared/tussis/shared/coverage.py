"""The part of a recording that an analysis covers."""

from __future__ import annotations

from enum import StrEnum

from tussis.shared.errors import InvalidJob
from tussis.shared.uris import shown


class Coverage(StrEnum):
    """The part of a recording that the model analyses."""

    HEAD = "head"
    """The first 32 segments (17.5 s), in one bag."""
    FULL = "full"
    """All segments, in consecutive bags of 32. The recording's probability is that of its highest bag."""


def coverage_named(value: object) -> Coverage:
    """The coverage with this name. Raises :class:`InvalidJob`."""
    try:
        return Coverage(str(value))
    except ValueError:
        raise InvalidJob(f"coverage must be one of {', '.join(Coverage)}, not {shown(value)}") from None
