"""``tussis results``: list stored analyses, newest first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from tussis.shared.states import AnalysisState
from tussis.shared.text import printable, probability
from tussis.worker.cli.result_options import filter_options, result_filter
from tussis.worker.local.terminal import console, on_terminal, plain

if TYPE_CHECKING:
    from rich.table import Table

    from tussis.shared.store.records import Analysis, Segment
    from tussis.shared.store.repository import Store

#: Rows of the table unless --limit says otherwise: few enough to read.
TABLE_LIMIT = 50
#: Analyses whose segments are read with one query.
_BATCH = 200
#: Least width of a terminal for the column of times, and for those of model and profile if they differ.
_WIDE = 110


@click.command()
@filter_options
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help=f"At most this number of analyses.  [default: {TABLE_LIMIT}; with --json all]",
)
@click.option(
    "--segments", "with_segments", is_flag=True, help="Also print every segment (with --json null if deleted)."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def results(limit: int | None, with_segments: bool, as_json: bool, **options: Any) -> None:
    """List analyses and their results, newest first. Times are in UTC.

    A recording has one analysis for each model and profile, and for each time it was enqueued with --again. With
    --newest it has one row. For other queries use SQL: see docs/query.md.

    \b
    Examples:
      tussis results --since 2h --decision cough
      tussis results --newest --model cough@2 --metadata site=north
      tussis results --prefix s3://clinic/2026/ --state failed
      tussis results --json --segments > results.jsonl
    """
    from dataclasses import replace

    from tussis.shared.settings import load_settings
    from tussis.shared.store.records import ResultFilter
    from tussis.shared.store.repository import Store

    wanted = result_filter(**options, limit=limit if limit or as_json else TABLE_LIMIT)
    with Store.connect(load_settings().need_database()) as store:
        store.verify_schema()
        found = _with_segments(store, store.results(wanted), with_segments)
        if as_json:
            for analysis, segments in found:
                click.echo(json.dumps(as_object(analysis, segments)))
            return
        shown = list(found)
    if not shown:
        narrowed = replace(wanted, newest=False, limit=None) != ResultFilter()
        click.echo("No results match." if narrowed else "No results yet: enqueue a recording with `tussis enqueue`.")
        return
    _print(shown, more=len(shown) == wanted.limit)


#: An analysis, and its segments if they were requested.
_Shown: TypeAlias = "tuple[Analysis, tuple[Segment, ...] | None]"


def as_object(analysis: Analysis, segments: tuple[Segment, ...] | None) -> dict[str, Any]:
    """An analysis as JSON: the fields of ``tussis analyze``, and those that only the store has."""
    from tussis.shared.store.records import finite, segments_deleted

    report: dict[str, Any] = {
        "uri": analysis.uri,
        "state": analysis.state.value,
        "bag_probability": analysis.bag_probability,
        "bag_logit": finite(analysis.bag_logit),
        "decision": analysis.decision,
        "threshold": analysis.threshold if analysis.decision is not None else None,
        "profile": analysis.profile,
        "coverage": analysis.coverage,
        "model": analysis.model,
        "duration_s": analysis.duration_s,
        "analyzed_s": analysis.analyzed_s,
        "truncated": analysis.truncated,
        "etag": analysis.etag,
        "version_id": analysis.version_id,
        "metadata": analysis.metadata,
        "job_id": analysis.job_id,
        "analysis_id": analysis.id,
        "attempts": analysis.attempts,
        "timings_ms": analysis.timings_ms,
        "software": None if analysis.software is None else asdict(analysis.software),
        "created_at": analysis.created_at.isoformat(),
        "enqueued_at": analysis.enqueued_at.isoformat(),
        "finished_at": analysis.finished_at.isoformat() if analysis.finished_at else None,
    }
    if analysis.error_class is not None:
        report["error"] = {"class": analysis.error_class, "message": analysis.error_message}
    if segments is not None and segments_deleted(analysis, segments):
        report["segments"] = None
    elif segments is not None:
        report["segments"] = [
            {
                "index": segment.index,
                "start_s": segment.start_s,
                "end_s": segment.end_s,
                "probability": segment.probability,
                "logit": finite(segment.logit),
            }
            for segment in segments
        ]
    return report


def _with_segments(store: Store, listing: Iterator[Analysis], wanted: bool) -> Iterator[_Shown]:
    """Each analysis with its segments, or with None if they were not requested."""
    while batch := list(islice(listing, _BATCH)):
        segments = store.segments_of_each([analysis.id for analysis in batch]) if wanted else {}
        for analysis in batch:
            yield analysis, segments.get(analysis.id, ()) if wanted else None


def _print(shown: list[_Shown], *, more: bool) -> None:
    screen = console()
    wide = screen.width >= _WIDE
    models = sorted({analysis.model or "none" for analysis, _ in shown})
    profiles = sorted({analysis.profile or "none" for analysis, _ in shown})
    several = [wide and len(names) > 1 for names in (models, profiles)]
    table = _table if on_terminal() else _rows
    screen.print(table(shown, when=wide, model=several[0], profile=several[1]))
    kinds: dict[str, int] = {}
    for analysis, _ in shown:
        kind = analysis.state.value if analysis.decision is None else "cough" if analysis.decision else "no cough"
        kinds[kind] = kinds.get(kind, 0) + 1
    report = f"{len(shown):,} shown: " + ", ".join(f"{count:,} {kind}" for kind, count in kinds.items()) + "."
    report += " There may be more: use --limit, --since or --until." if more else ""
    report += f" Model: {', '.join(models)}. Profile: {', '.join(profiles)}."
    screen.print(printable(report), markup=False)


def _table(shown: list[_Shown], *, when: bool, model: bool, profile: bool) -> Table:
    """The table for a terminal. Values that are the same in every row are printed below it, not in a column."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold underline")
    table.add_column("answer", no_wrap=True)
    table.add_column("prob.", justify="right", no_wrap=True)
    table.add_column("length", justify="right", no_wrap=True)
    table.add_column("recording", overflow="fold", ratio=1)
    if model:
        table.add_column("model", overflow="fold", max_width=24)
    if profile:
        table.add_column("profile", no_wrap=True)
    if when:
        table.add_column("first attempt (UTC)", no_wrap=True)
    for analysis, segments in shown:
        remark = _remark(analysis, segments)
        cells = [
            _answer(analysis),
            _probability(analysis),
            _length(analysis),
            plain(analysis.uri)
            + (f"\n[dim]{plain(remark)}[/]" if remark else "")
            + "".join(map(_segment_line, segments or ())),
        ]
        if model:
            cells.append(plain(analysis.model or ""))
        if profile:
            cells.append(plain(analysis.profile))
        if when:
            cells.append(f"{analysis.created_at:%Y-%m-%d %H:%M:%S}")
        table.add_row(*cells)
    return table


def _rows(shown: list[_Shown], *, when: bool, model: bool, profile: bool) -> Table:
    """The table without a terminal: one line with the URI for every analysis, followed by its segments."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    headings = ["answer", "prob.", "length", "recording"]
    headings += [name for name, there in (("model", model), ("profile", profile)) if there]
    headings += ["first attempt (UTC)"] if when else []
    headings += ["remark"] if any(_remark(*each) for each in shown) else []
    for heading in headings:
        table.add_column(heading, justify="right" if heading in ("prob.", "length") else "left")
    for analysis, segments in shown:
        uri = plain(analysis.uri)
        beside = [plain(analysis.model or "")] if model else []
        beside += [plain(analysis.profile)] if profile else []
        beside += [f"{analysis.created_at:%Y-%m-%d %H:%M:%S}"] if when else []
        beside += [plain(_remark(analysis, segments))] if "remark" in headings else []
        table.add_row(_answer(analysis), _probability(analysis), _length(analysis), uri, *beside)
        for segment in segments or ():
            span = f"{segment.start_s:.1f} to {segment.end_s:.1f} s"
            table.add_row("  segment", probability(segment.probability), span, uri)
    return table


def _probability(analysis: Analysis) -> str:
    return "" if analysis.bag_probability is None else probability(analysis.bag_probability, analysis.threshold)


def _length(analysis: Analysis) -> str:
    return "" if analysis.duration_s is None else f"{analysis.duration_s:.1f} s"


def _answer(analysis: Analysis) -> str:
    if analysis.decision is True:
        return "[bold red]COUGH[/]"
    if analysis.decision is False:
        return "no cough"
    if analysis.state is AnalysisState.FAILED:
        return "[yellow]failed[/]"
    return f"[dim]{analysis.state.value}[/]"


def _remark(analysis: Analysis, segments: tuple[Segment, ...] | None) -> str:
    """The error, or notes about a truncated recording and deleted segments."""
    from tussis.shared.store.records import segments_deleted

    if analysis.error_class is not None:
        return f"{analysis.error_class}: {analysis.error_message}"
    notes = [f"only the first {analysis.analyzed_s:.1f} s were analysed"] if analysis.truncated else []
    if segments is not None and segments_deleted(analysis, segments):
        notes.append("its segments were deleted by `tussis retain`")
    return "; ".join(notes)


def _segment_line(segment: Segment) -> str:
    bar = "▇" * round(10 * segment.probability)
    return f"\n[dim]{segment.start_s:6.1f} to {segment.end_s:5.1f} s[/]  {probability(segment.probability):>6} {bar}"
