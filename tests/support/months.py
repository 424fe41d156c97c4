"""Months of the table ``segments``: old partitions and old analyses, for tests of partitions and retention."""

from __future__ import annotations

from tests.support.store import execute, rows


def month_name(url: str, months_ago: int) -> str:
    """Return the name of the partition of a month, by the clock of the database."""
    month = "date_trunc('month', now() AT TIME ZONE 'UTC') - make_interval(months => %s)"
    return str(rows(url, f"SELECT 'segments_' || to_char({month}, 'YYYY_MM')", months_ago)[0][0])


def make_month(url: str, months_ago: int) -> str:
    """Make the partition of an old month; returns its name."""
    [(start, end)] = rows(
        url,
        """
        SELECT to_char(month, 'YYYY-MM-DD'), to_char(month + interval '1 month', 'YYYY-MM-DD')
        FROM (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') - make_interval(months => %s)) AS months (month)
        """,
        months_ago,
    )
    name = month_name(url, months_ago)
    execute(
        url,
        f"CREATE TABLE {name} PARTITION OF segments FOR VALUES FROM ('{start} 00:00:00+00') TO ('{end} 00:00:00+00')",
    )
    return name


def make_older(url: str, analysis_id: int, months: int) -> None:
    """Change an analysis as if all of it had happened ``months`` months ago, on the 15th."""
    then = (
        "(date_trunc('month', now() AT TIME ZONE 'UTC') - make_interval(months => %s) + interval '14 days') "
        "AT TIME ZONE 'UTC'"
    )
    execute(
        url,
        f"UPDATE analyses SET created_at = {then}, finished_at = CASE WHEN finished_at IS NOT NULL THEN {then} END "
        "WHERE id = %s",
        months,
        months,
        analysis_id,
    )
    execute(url, f"UPDATE segments SET analysis_created_at = {then} WHERE analysis_id = %s", months, analysis_id)


def segments_in(url: str, partition: str) -> int:
    """Return the number of rows of a partition."""
    return int(rows(url, f"SELECT count(*) FROM {partition}")[0][0])
