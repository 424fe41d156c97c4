"""``tussis audit``: which answers depend on the preprocessing, and why."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tussis.shared.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tussis.shared.dsp.profiles import Profile
    from tussis.worker.audit.audit import Audit
    from tussis.worker.audit.findings import Findings
    from tussis.worker.audit.tables import Listing
    from tussis.worker.evaluation.flips import MostFlips

#: Recordings in the printed table; ``--json`` and ``--html`` have more.
_WORST = 10


def _profiles(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[Profile, ...]:
    from tussis.shared.dsp.profiles import PROFILES, profile_named
    from tussis.shared.errors import UnknownProfile

    try:
        return tuple(profile_named(name.strip()) for name in (value or ",".join(PROFILES)).split(","))
    except UnknownProfile as error:
        raise click.BadParameter(str(error)) from None


def _most_flips(ctx: click.Context, param: click.Parameter, value: str | None) -> MostFlips | None:
    if value is None:
        return None
    from tussis.worker.evaluation.flips import MostFlips

    try:
        return MostFlips.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="AUDIO...")
@click.option(
    "--model", help="Path or s3:// URI of an ONNX file.  [default: TUSSIS_MODEL, otherwise the shipped model]"
)
@click.option(
    "--profiles",
    metavar="NAME,...",
    callback=_profiles,
    help="Profiles to compare with the model's own.  [default: all]",
)
@click.option(
    "--coverage",
    type=click.Choice(["head", "full"]),
    help="head: the first 17.5 s; full: the whole recording.  [default: the coverage in the model's manifest]",
)
@click.option("--labels", metavar="CSV", type=click.Path(path_type=Path), help="File with the columns file and label.")
@click.option(
    "--events",
    metavar="CSV",
    type=click.Path(path_type=Path),
    help="File with the columns file, start_s and end_s: the coughs. Needs --labels.",
)
@click.option(
    "--against",
    metavar="JSONL",
    type=click.Path(path_type=Path),
    help="Answers of another system, one object per line.",
)
@click.option(
    "--attribute-above",
    type=click.FloatRange(0, 1),
    default=0.02,
    show_default=True,
    help="Attribute larger shifts to single factors. Flips are always attributed.",
)
@click.option(
    "--max-flips", metavar="N|P%", callback=_most_flips, help="Exit status 1 if more decisions flip in a comparison."
)
@click.option("--max-shift", type=click.FloatRange(0, 1), help="Exit status 1 if a bag probability shifts more.")
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="Also write an HTML report.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def audit(
    ctx: click.Context,
    sources: tuple[str, ...],
    model: str | None,
    profiles: tuple[Profile, ...],
    coverage: str | None,
    labels: Path | None,
    events: Path | None,
    against: Path | None,
    attribute_above: float,
    max_flips: MostFlips | None,
    max_shift: float | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Show which answers depend on the preprocessing, and why.

    Takes files, folders and s3:// prefixes. Each recording is analysed with the profile of the model's manifest and
    with each other profile. A changed answer is attributed to single factors: decoder, normalisation, high-pass, tail,
    precision. Use it before a deployment, or to find out how another system preprocesses. Needs no broker and no
    database.

    With --labels it shows under which profile the answers agree best with the labels: that of the model's training.
    --events adds the F1 of cough events.
    With --against it shows which profile reproduces the answers of another system.

    A recording that cannot be decoded is listed and does not stop the audit. The exit status is 1 if a limit is
    exceeded, or if no recording could be audited.

    \b
    Examples:
      tussis audit recordings/ --html audit.html
      tussis audit s3://clinic/2026/ --model models/cough.onnx --labels labels.csv
      tussis audit recordings/ --against old-backend.jsonl
      tussis audit recordings/ --profiles legacy --max-flips 0.5% --max-shift 0.2
    """
    from tussis.shared.errors import TooFewRecordings
    from tussis.worker.audit.foreign import read_answers
    from tussis.worker.audit.summary import Limits
    from tussis.worker.evaluation.labels import read_events, read_labels
    from tussis.worker.local_files import check_output

    if events is not None and labels is None:
        raise click.UsageError("--events needs --labels")
    if html is not None:
        check_output(html)
    # Read before the model runs, so that a mistake in a file is reported at once.
    read = (
        None if labels is None else read_labels(labels),
        None if events is None else read_events(events),
        None if against is None else read_answers(against),
    )
    done = _run(sources, model, profiles, coverage, attribute_above, all_bags=against is not None)
    findings = _findings(done, Limits(max_flips, max_shift), *read)
    if html is not None:
        _write_page(html, findings)
    if as_json:
        from tussis.worker.audit.document import as_object

        click.echo(json.dumps(as_object(findings)))
    else:
        _print(findings)
    if not done.recordings:
        raise TooFewRecordings("no recording could be audited: the list of failures names the reasons")
    for line in findings.exceeded:
        click.echo(printable(f"tussis: {line}"), err=True)
    ctx.exit(1 if findings.exceeded else 0)


def _run(
    sources: Sequence[str],
    model: str | None,
    profiles: Sequence[Profile],
    coverage: str | None,
    attribute_above: float,
    *,
    all_bags: bool,
) -> Audit:
    """The audit. ``all_bags``: score the whole recordings, from which both coverages can be derived."""
    import torch

    from tussis.shared.coverage import Coverage
    from tussis.shared.errors import TooFewRecordings
    from tussis.shared.s3 import models_s3, s3_client
    from tussis.shared.settings import load_settings
    from tussis.worker.audit.audit import Plan, others_of, run
    from tussis.worker.cli.sources import expand
    from tussis.worker.detector.detector import Detector
    from tussis.worker.detector.shipped import default_model
    from tussis.worker.detector.source import resolve_model
    from tussis.worker.pipeline.analysis import Analyzer

    settings = load_settings(model=model)
    # The preprocessing of one recording is too short for several threads.
    torch.set_num_threads(1)
    shipped = default_model() if settings.model is None else None
    path = shipped or resolve_model(settings.need_model(), settings.model_cache_dir, lambda: models_s3(settings))
    detector = Detector.load(path, intra_op_threads=settings.concurrency)
    analyzer = Analyzer.of(detector, None, coverage, settings, lambda: s3_client(settings))
    plan = Plan(
        detector=detector,
        own=analyzer.profile,
        others=others_of(analyzer.profile, profiles),
        coverage=analyzer.coverage,
        scored_coverage=Coverage.FULL if all_bags else analyzer.coverage,
        limits=analyzer.limits,
        attribute_above=attribute_above,
    )
    found = list(expand(sources, lambda: s3_client(settings)))
    if not found:
        raise TooFewRecordings(f"no recordings in {', '.join(sources)}: give files, folders or s3:// prefixes")
    with click.progressbar(length=len(found), label=f"recordings: {len(found):,}", file=sys.stderr) as bar:
        return run(plan, found, analyzer.read, lambda _: bar.update(1))


def _findings(audit: Audit, limits: Any, labels: Any, events: Any, answers: Any) -> Findings:
    from tussis.shared.errors import AnswersInvalid, LabelsInvalid
    from tussis.worker.audit import against, labelled
    from tussis.worker.audit.findings import Findings
    from tussis.worker.evaluation.evaluation import check_agreement
    from tussis.worker.evaluation.matching import names_of

    sources = [one.source for one in audit.recordings] + [source for source, _ in audit.failures]
    told = compared = None
    if labels is not None:
        by_file = {label.file: label for label in labels}
        names = names_of(sources, by_file, LabelsInvalid)
        coughs = None
        if events is not None:
            coughs = {source: events[name] for source, name in names_of(sources, events, LabelsInvalid).items()}
            for source, spans in coughs.items():
                if source in names:
                    check_agreement(by_file[names[source]], spans)
        told = labelled.compare(
            audit,
            {source: by_file[name].is_cough for source, name in names.items()},
            len(by_file) - len(names),
            coughs,
        )
    if answers is not None:
        by_name = {answer.file: answer for answer in answers.answers}
        names = names_of(sources, by_name, AnswersInvalid)
        compared = against.compare(audit, answers, {source: by_name[name] for source, name in names.items()})
    return Findings.of(audit, limits, told, compared)


def _write_page(path: Path, findings: Findings) -> None:
    from importlib.metadata import version

    from tussis.worker.audit.page import audit_page
    from tussis.worker.local_files import written_whole

    with written_whole(path) as stream:
        stream.write(audit_page(findings, datetime.now(UTC), version("tussis")).encode())
    click.echo(printable(str(path)), err=True)


def _print(findings: Findings) -> None:
    from tussis.worker.audit import sentences, tables

    audit = findings.audit
    click.echo(printable(sentences.subject(audit)))
    if findings.summaries and audit.recordings:
        for summary in findings.summaries:
            click.echo(sentences.decisions(summary, audit.plan.own.name))
        _table(tables.profiles(findings.summaries))
        if any(summary.attributed for summary in findings.summaries):
            click.echo(sentences.attribution(audit))
            _table(tables.factors(findings.summaries))
        _table(tables.worst(audit, _WORST, with_factors=False))
    if findings.labelled is not None:
        for line in sentences.labels(findings.labelled):
            click.echo(line)
        _table(tables.labels(findings.labelled))
    if findings.against is not None:
        for line in sentences.against(findings.against, audit):
            click.echo(printable(line))
        _table(tables.candidates(findings.against))
    if audit.failures:
        _table(tables.failures(audit))


def _table(listing: Listing) -> None:
    from rich.table import Table

    from tussis.worker.local.terminal import console, on_terminal, plain

    table = Table(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold underline" if on_terminal() else ""
    )
    for column, heading in enumerate(listing.headings):
        table.add_column(heading, justify="right" if column in listing.numbers else "left", overflow="fold")
    for row in listing.rows:
        table.add_row(*map(plain, row))
    screen = console()
    screen.print()
    screen.print(table)
    screen.print()
