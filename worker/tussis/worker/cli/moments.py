"""Parse and check the times of command-line options."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

#: The largest difference between clocks: a time that is later than now by at most this counts as now.
_SKEW = timedelta(minutes=5)
_AGO = re.compile(r"(\d{1,6})(s|min|h|d|w)")
_UNITS = {
    "s": timedelta(seconds=1),
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


def moment(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """Callback of an option: convert ISO 8601 (UTC unless it has an offset), or a time ago (``90s``, ``30min``, ``2h``,
    ``7d``, ``1w``), to a time in UTC."""
    return None if value is None else parse_moment(value)


def parse_moment(value: str) -> datetime:
    """The time of a text, as :func:`moment`. Raises :class:`click.BadParameter`."""
    try:
        ago = parse_length(value)
        if ago is not None:
            return datetime.now(UTC) - ago
        given = datetime.fromisoformat(value)
        return given.astimezone(UTC) if given.tzinfo else given.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{value!r} is not a time: write 2026-11-22, 2026-11-22T14:30 (UTC), or a time ago: 90s, 30min, 2h, 7d"
        ) from None


def parse_length(value: str) -> timedelta | None:
    """The length of time of a text such as ``90s`` or ``7d``; None for any other text. Raises OverflowError."""
    found = _AGO.fullmatch(value)
    return int(found[1]) * _UNITS[found[2]] if found else None


def check_span(since: datetime | None, until: datetime | None) -> None:
    """Raise :class:`click.UsageError` if no time can be between ``since`` and ``until``."""
    now = datetime.now(UTC)
    if since is not None and since > now + _SKEW:
        raise click.UsageError(
            f"--since {since:%Y-%m-%d %H:%M} is in the future: give a time before {now:%Y-%m-%d %H:%M} UTC"
        )
    if since is not None and until is not None and since >= until:
        raise click.UsageError(
            f"--since {since:%Y-%m-%d %H:%M} is not before --until {until:%Y-%m-%d %H:%M} (UTC): give an earlier time"
        )
