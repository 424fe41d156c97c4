"""``tussis drift``: compare the recordings and answers of a period with those of a reference period."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from tussis.shared.text import printable
from tussis.shared.uris import shown
from tussis.worker.cli.moments import check_span, moment, parse_length, parse_moment
from tussis.worker.cli.result_options import storable
from tussis.worker.local.terminal import console, plain

if TYPE_CHECKING:
    from rich.table import Table

    from tussis.shared.store.drift import DriftGroup, Period
    from tussis.worker.cli.drift_rows import Row

#: Groups that are compared: the values with the most results. The number of rows and of time series stays bounded.
_GROUPS = 20
#: The length of the time before the period, or the two ends.
_Reference: TypeAlias = "timedelta | tuple[datetime, datetime]"


def _reference(ctx: click.Context, param: click.Parameter, value: str) -> _Reference:
    start, dots, end = value.partition("..")
    if dots:
        return parse_moment(start), parse_moment(end)
    try:
        length = parse_length(value)
    except OverflowError:
        length = None
    if not length:
        raise click.BadParameter(f"{shown(value)} is neither a length of time such as 28d nor FROM..TO")
    return length


def _by(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not storable(value):
        raise click.BadParameter(f"{shown(value)} has characters that metadata cannot have: write it in UTF-8")
    return value


@click.command()
@click.option(
    "--since",
    metavar="TIME",
    default="7d",
    show_default=True,
    callback=moment,
    help="Start of the period: 2026-11-22, 2026-11-22T14:30 (UTC), or 2h, 7d (ago).",
)
@click.option("--until", metavar="TIME", callback=moment, help="End of the period.  [default: now]")
@click.option(
    "--reference",
    metavar="LENGTH|FROM..TO",
    default="28d",
    show_default=True,
    callback=_reference,
    help="Reference period: this length of time before --since, or from one time to another.",
)
@click.option(
    "--by",
    metavar="NAME",
    callback=_by,
    help="Compare each value of this metadata with itself: site, device, app_version. The 20 values with the most "
    "results are compared.",
)
@click.option(
    "--max-psi",
    metavar="X",
    type=click.FloatRange(min=0),
    help="Exit with status 1 if the PSI of a measure is above X and chance does not explain it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--prometheus", "as_metrics", is_flag=True, help="Print metrics in the text format of Prometheus.")
def drift(
    since: datetime,
    until: datetime | None,
    reference: _Reference,
    by: str | None,
    max_psi: float | None,
    as_json: bool,
    as_metrics: bool,
) -> None:
    """Compare this week's recordings and answers with those of the four weeks before.

    A changed app, microphone or codec changes the levels, the durations, the warnings or the probabilities. Each
    measure has a row, the largest change first. PSI is the population stability index: below 0.1 little has changed,
    from 0.25 on much. A period with fewer than 100 results is not compared.

    The time of a recording is recorded_at of its metadata, or else the time at which Tussis first received it.

    \b
    Examples:
      tussis drift
      tussis drift --since 1d --reference 7d --by device
      tussis drift --since 2026-11-01 --reference 2026-09-01..2026-10-01
      tussis drift --max-psi 0.25 || echo "something has changed"
      tussis drift --prometheus > drift.prom
    """
    from tussis.shared.settings import load_settings
    from tussis.shared.store.exports import EXPORT_TIMEOUT_S
    from tussis.shared.store.repository import Store
    from tussis.worker.cli.drift_rows import rows_of

    if as_json and as_metrics:
        raise click.UsageError("--json and --prometheus are two formats: give one of them")
    period, before = _spans(since, until, reference)
    with Store.connect(load_settings().need_database(), statement_timeout_s=EXPORT_TIMEOUT_S) as store:
        store.verify_schema()
        # One group more than shown tells whether there are more.
        groups = store.drift(period, before, by=by, groups=1 if by is None else _GROUPS + 1)
    more = len(groups) > _GROUPS
    groups = groups[:_GROUPS]
    results, reference_results = (sum(_results(group)[side] for group in groups) for side in (0, 1))
    rows = rows_of(groups)
    if as_json:
        click.echo(json.dumps(_as_json(period, before, by, more, rows)))
    elif as_metrics:
        click.echo(_metrics(rows, grouped=by is not None), nl=False)
    else:
        empty = [span for span, count in ((period, results), (before, reference_results)) if not count]
        if empty:
            click.echo(f"Nothing to compare: no results for recordings of {' or of '.join(map(_in_words, empty))}.")
            return
        _print(period, before, (results, reference_results), by, rows, more)
    above = [row for row in rows if max_psi is not None and row.above(max_psi)]
    if above:
        names = ", ".join(dict.fromkeys(row.measure for row in above))
        click.echo(f"tussis: drift: the PSI of {names} is above {max_psi:g}", err=True)
        sys.exit(1)


def _spans(since: datetime, until: datetime | None, reference: _Reference) -> tuple[Period, Period]:
    """The period and the reference period. Raises :class:`click.UsageError` if they overlap or are empty."""
    from tussis.shared.store.drift import Period

    check_span(since, until)
    period = Period(since, until or datetime.now(UTC))
    if isinstance(reference, timedelta):
        try:
            return period, Period(since - reference, since)
        except OverflowError:
            raise click.UsageError("--reference starts before the year 1: give a shorter length") from None
    before = Period(*reference)
    if before.start >= before.end:
        raise click.UsageError(f"--reference {_in_words(before)} has no length: give the earlier time first")
    if before.start < period.end and period.start < before.end:
        raise click.UsageError(
            f"--reference {_in_words(before)} overlaps the period {_in_words(period)}: recordings would be compared "
            "with themselves"
        )
    return period, before


def _results(group: DriftGroup) -> tuple[int, int]:
    return group.period["decision"].results, group.reference["decision"].results


def _in_words(span: Period) -> str:
    return f"{span.start:%Y-%m-%d %H:%M} to {span.end:%Y-%m-%d %H:%M} UTC"


def _as_json(period: Period, before: Period, by: str | None, more: bool, rows: list[Row]) -> dict[str, Any]:
    from dataclasses import asdict

    from tussis.shared.store.records import finite

    def shown_row(row: Row) -> dict[str, Any]:
        found = asdict(row) | {"median": finite(row.median), "reference_median": finite(row.reference_median)}
        return found if by is not None else {name: value for name, value in found.items() if name != "group"}

    return {
        "since": period.start.isoformat(),
        "until": period.end.isoformat(),
        "reference_since": before.start.isoformat(),
        "reference_until": before.end.isoformat(),
        "by": by,
        "more_groups": more,
        "measures": [shown_row(row) for row in rows],
    }


def _metrics(rows: list[Row], *, grouped: bool) -> str:
    """The text format of Prometheus. A measure with too few results has no PSI, and so no line for it."""
    lines = []
    for name, words in (
        ("psi", "Population stability index of a measure against the reference period."),
        ("chance_limit", "PSI that chance exceeds once in 1,000 times if nothing has changed."),
        ("results", "Results of the period."),
        ("reference_results", "Results of the reference period."),
    ):
        lines += [f"# HELP tussis_drift_{name} {words}", f"# TYPE tussis_drift_{name} gauge"]
        for row in rows:
            value = getattr(row, name)
            if value is not None:
                labels = f'measure="{row.measure}"' + (f',group="{_label(row.group)}"' if grouped else "")
                lines.append(f"tussis_drift_{name}{{{labels}}} {value:.9g}")
    return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    return printable(text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))


def _print(
    period: Period, before: Period, counts: tuple[int, int], by: str | None, rows: list[Row], more: bool
) -> None:
    from tussis.shared.drift import Change

    screen = console()
    changed = [row for row in rows if row.change in (Change.SMALL, Change.LARGE)]
    # A measure of a group that has not changed is not shown: there are 14 measures for each of 20 groups.
    screen.print(_table(rows if by is None else changed, by))
    screen.print(f"Period: {_in_words(period)}, {counts[0]:,} results. Reference: {_in_words(before)}, {counts[1]:,}.")
    if by is None:
        few = [row for row in rows if row.change is Change.UNKNOWN]
        summary = f"{len(changed):,} of {len(rows):,} measures have changed."
        summary += f" {len(few):,} are not compared: they have fewer than 100 results in a period." if few else ""
    else:
        names = {row.group for row in rows}
        few_groups = sorted({row.group for row in rows if row.change is Change.UNKNOWN and row.measure == "decision"})
        summary = f"{len({row.group for row in changed}):,} of {len(names):,} groups have changed."
        if few_groups:
            listed = ", ".join(printable(name) or f"without {by}" for name in few_groups)
            summary += f" Not compared (fewer than 100 results in a period): {listed}."
        summary += f" Only the {_GROUPS} groups with the most results are compared." if more else ""
    screen.print(summary, markup=False)


def _table(rows: list[Row], by: str | None) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold underline")
    if by is not None:
        table.add_column(plain(by), overflow="fold")
    table.add_column("measure", no_wrap=True)
    table.add_column("change", no_wrap=True)
    for heading in ("PSI", "by chance", "KS"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what has changed", overflow="fold")
    for row in rows:
        cells = [] if by is None else [plain(row.group or f"without {by}")]
        cells += [row.measure, row.change.value]
        cells += ["" if value is None else f"{value:.3f}" for value in (row.psi, row.expected_psi, row.ks)]
        table.add_row(*cells, plain(row.words))
    return table
