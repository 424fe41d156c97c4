"""``tussis failures``: list, show, retry and discard failures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tussis.shared.errors import FailureUnknown
from tussis.shared.text import printable
from tussis.worker.cli.error_classes import check_class
from tussis.worker.cli.failure_views import print_one, print_table, show_classes
from tussis.worker.cli.moments import check_span, moment
from tussis.worker.cli.who import who_of
from tussis.worker.jobs.failures import as_attempt, as_object

if TYPE_CHECKING:
    from tussis.shared.ledger import Ledger
    from tussis.shared.store.records import Analysis, FailureFilter
    from tussis.shared.store.repository import Store

F = TypeVar("F", bound=Callable[..., Any])

#: Rows of the table unless --limit says otherwise: few enough to read.
_TABLE_LIMIT = 50
#: A bigint of PostgreSQL.
_ID = click.IntRange(1, 2**63 - 1)
#: Failures handled in one round trip.
_BATCH = 500


def _filter_options(command: F) -> F:
    """The options that select failures."""
    for option in reversed(
        [
            click.option("--class", "error_class", metavar="CLASS", help="Only failures of this error class."),
            click.option("--prefix", metavar="S3_URI", help="Only recordings under s3://bucket/start-of-key."),
            click.option(
                "--since",
                metavar="TIME",
                callback=moment,
                help="Only failures from this time on: 2026-11-22, 2026-11-22T14:30 (UTC), or 2h, 7d (ago).",
            ),
            click.option("--until", metavar="TIME", callback=moment, help="Only failures before this time."),
            click.option("--discarded", is_flag=True, help="Include discarded failures."),
            click.option("--limit", type=click.IntRange(min=1), help="At most this number of failures, the newest."),
        ]
    ):
        command = option(command)
    return command


def _selection_options(command: F) -> F:
    """The arguments and options of a command that changes failures."""
    for option in reversed(
        [
            click.argument("ids", nargs=-1, type=_ID, metavar="[ID]..."),
            click.option("--all", "everything", is_flag=True, help="Select all failures."),
            click.option("--dry-run", is_flag=True, help="Print what would be done, and change nothing."),
            click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line."),
            click.option("-q", "--quiet", is_flag=True, help="Print only the summary, no line per failure."),
        ]
    ):
        command = option(command)
    return _filter_options(command)


@click.group()
def failures() -> None:
    """List, show, retry and discard failures.

    A failure is the stored reason why a recording has no result.

    \b
    Examples:
      tussis failures list --by-class
      tussis failures list --class corrupt --since 7d
      tussis failures show 17
      tussis failures retry --class expired --prefix s3://clinic/2026/
      tussis failures discard 17 18
    """


@failures.command("list")
@_filter_options
@click.option("--by-class", "grouped", is_flag=True, help="Print the number of failures of each error class.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def list_(grouped: bool, as_json: bool, limit: int | None, **filters: Any) -> None:
    """List failures, newest first. Times are in UTC."""
    wanted = _failure_filter((), limit=limit if limit or as_json else _TABLE_LIMIT, **filters)
    with _store() as store:
        check_class(filters["error_class"], store)
        if grouped:
            show_classes(store.failures_by_class(wanted), as_json)
            return
        found = store.failures(wanted)
        if as_json:
            for analysis in found:
                click.echo(json.dumps(as_object(analysis)))
            return
        shown = list(found)
    if not shown:
        click.echo("No failure matches." if _has_filter(filters) else "No failures.")
        return
    print_table(shown)
    if len(shown) == wanted.limit:
        click.echo(f"These are the newest {len(shown):,} failures. There may be more: use --limit or --by-class.")


@failures.command()
@click.argument("analysis_id", type=_ID, metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(analysis_id: int, as_json: bool) -> None:
    """Show one analysis and all its attempts.

    ID is the number in `tussis failures list`. The command also shows an analysis that has a result after a retry.
    """
    with _store() as store:
        analysis = store.analysis(analysis_id)
        attempts = store.attempts_of(analysis_id)
    if analysis is None:
        raise FailureUnknown(f"no analysis has the id {analysis_id}: list the failures with `tussis failures list`")
    shown = as_object(analysis) | {"history": [as_attempt(attempt) for attempt in attempts]}
    if as_json:
        click.echo(json.dumps(shown))
    else:
        print_one(shown)


@failures.command()
@_selection_options
@click.option(
    "--priority",
    type=click.IntRange(0, 9),
    default=5,
    show_default=True,
    help="Priority of the jobs. Workers take 0 first and 9 last.",
)
@click.pass_context
def retry(ctx: click.Context, /, ids: tuple[int, ...], dry_run: bool, priority: int, **options: Any) -> None:
    """Enqueue failures again, selected by ID, by filter, or with --all.

    Use it after the cause of the failures is fixed. A retry is a new attempt of the same analysis. The earlier attempts
    stay recorded. A worker of any kind takes the job and uses its own model, unless the failed job named a model.

    A discarded failure is retried only if its ID is given, or with --discarded.
    """
    from dataclasses import replace

    from tussis.shared.broker import connect, redact
    from tussis.shared.ledger import Ledger
    from tussis.shared.settings import load_settings

    settings = load_settings()
    url = settings.need_broker()
    ledger: Ledger = Ledger(connect(url), redact(url))
    sent = already_open = 0
    with _store() as store:
        selection = _Selection(store, ids, by_id_discarded=True, **options)
        for batch in selection.batches():
            jobs = [replace(store.retry_job(analysis), priority=priority) for analysis in batch]
            answers = [True] * len(jobs) if dry_run else ledger.open_many(jobs)
            for analysis, job, answer in zip(batch, jobs, answers, strict=True):
                sent, already_open = sent + answer, already_open + (not answer)
                selection.print_line(analysis, {"job_id": job.job_id, "sent": answer and not dry_run})
    if dry_run:
        selection.finish(ctx, f"{sent:,} would be enqueued again")
    else:
        selection.finish(ctx, f"{sent:,} enqueued again" + (f", {already_open:,} already open" if already_open else ""))


@failures.command()
@_selection_options
@click.pass_context
def discard(ctx: click.Context, /, ids: tuple[int, ...], dry_run: bool, **options: Any) -> None:
    """Discard failures, selected by ID, by filter, or with --all.

    Use it for failures that need no retry. Discarded failures are not listed and not counted, and a sweep does not
    enqueue them again. `tussis failures retry ID` still does.
    """
    done, who = 0, who_of(None)
    with _store() as store:
        selection = _Selection(store, ids, by_id_discarded=False, **options)
        for batch in selection.batches():
            done += len(batch) if dry_run else store.discard([analysis.id for analysis in batch], discarded_by=who)
            for analysis in batch:
                selection.print_line(analysis, {"discarded": not dry_run})
    selection.finish(ctx, f"{done:,} would be discarded" if dry_run else f"{done:,} discarded")


class _Selection:
    """The failures that a command's arguments select, and the output about them."""

    def __init__(
        self,
        store: Store,
        ids: tuple[int, ...],
        *,
        everything: bool,
        by_id_discarded: bool,
        as_json: bool,
        quiet: bool,
        **filters: Any,
    ) -> None:
        given = [bool(ids), everything, _has_filter(filters)]
        if not any(given):
            raise click.UsageError(
                "Select failures: give IDs, a filter (--class, --prefix, --since, --until), or --all."
            )
        if ids and (everything or _has_filter(filters)):
            raise click.UsageError("Give IDs, or a filter or --all, not both.")
        check_class(filters["error_class"], store)
        if ids:
            filters["discarded"] = by_id_discarded
        self._store = store
        self._ids = ids
        self._wanted = _failure_filter(ids, **filters)
        self._as_json = as_json
        self._quiet = quiet
        self._seen: set[int] = set()

    def batches(self) -> Iterator[list[Analysis]]:
        """The selected failures, a batch at a time. Raises :class:`FailureUnknown` when there is none."""
        found = self._store.failures(self._wanted)
        any_found = False
        while batch := list(islice(found, _BATCH)):
            any_found = True
            if self._ids:
                self._seen |= {analysis.id for analysis in batch}
            yield batch
        if not any_found:
            which = f"no failure has the id {', '.join(map(str, self._ids))}" if self._ids else "no failure matches"
            raise FailureUnknown(f"{which}: list the failures with `tussis failures list`")

    def print_line(self, analysis: Analysis, done: dict[str, Any]) -> None:
        """Print the line of one failure."""
        if self._quiet:
            return
        if self._as_json:
            click.echo(json.dumps({"analysis_id": analysis.id, "uri": analysis.uri} | done))
        else:
            # Exactly two tabs per line: tabs in a key are escaped.
            click.echo(f"{analysis.id}\t{analysis.error_class}\t{printable(analysis.uri)}")

    def finish(self, ctx: click.Context, summary: str) -> None:
        """Print the summary, and exit. The status is 1 if an ID is not the id of a failure."""
        click.echo(summary, err=True)
        missing = [number for number in dict.fromkeys(self._ids) if number not in self._seen]
        for number in missing:
            click.echo(f"tussis: {number} is not a failure: see `tussis failures show {number}`", err=True)
        ctx.exit(1 if missing else 0)


def _store() -> Store:
    from tussis.shared.settings import load_settings
    from tussis.shared.store.repository import Store

    store = Store.connect(load_settings().need_database())
    store.verify_schema()
    return store


def _failure_filter(
    ids: Sequence[int],
    *,
    error_class: str | None,
    prefix: str | None,
    since: datetime | None,
    until: datetime | None,
    discarded: bool,
    limit: int | None,
) -> FailureFilter:
    from tussis.shared.store.records import FailureFilter

    check_span(since, until)
    return FailureFilter(
        error_class=error_class,
        prefix=prefix,
        since=since,
        until=until,
        ids=list(ids) or None,
        include_discarded=discarded,
        limit=limit,
    )


def _has_filter(filters: dict[str, Any]) -> bool:
    return any(filters[name] is not None for name in ("error_class", "prefix", "since", "until"))
