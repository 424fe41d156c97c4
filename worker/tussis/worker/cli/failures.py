"""``tussis failures``: recordings without an answer; look at them, try them again, put them aside."""

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
from tussis.worker.cli.failure_views import as_attempt, as_object, print_one, print_table, show_classes
from tussis.worker.cli.moments import check_span, moment

if TYPE_CHECKING:
    from tussis.shared.ledger import Ledger
    from tussis.shared.store.records import Analysis, FailureFilter
    from tussis.shared.store.repository import Store

F = TypeVar("F", bound=Callable[..., Any])

#: Rows of the table unless --limit says otherwise: about what a person reads.
_TABLE_LIMIT = 50
#: A bigint of PostgreSQL.
_ID = click.IntRange(1, 2**63 - 1)
#: Failures handled in one round trip.
_BATCH = 500


def _filters(command: F) -> F:
    """The options that say which failures."""
    for option in reversed(
        [
            click.option("--class", "error_class", metavar="CLASS", help="Of this error class, as in the list."),
            click.option("--prefix", metavar="S3_URI", help="Of recordings under s3://bucket/start-of-key."),
            click.option(
                "--since", metavar="TIME", callback=moment, help="From this time on: 2026-11-22, 2026-11-22T14:30, 2h."
            ),
            click.option("--until", metavar="TIME", callback=moment, help="Before this time."),
            click.option("--discarded", is_flag=True, help="With those that were discarded."),
            click.option("--limit", type=click.IntRange(min=1), help="At most so many, the newest."),
        ]
    ):
        command = option(command)
    return command


def _choice(command: F) -> F:
    """The arguments and options of a command that changes failures."""
    for option in reversed(
        [
            click.argument("ids", nargs=-1, type=_ID, metavar="[ID]..."),
            click.option("--all", "everything", is_flag=True, help="Every failure there is."),
            click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
            click.option("--json", "as_json", is_flag=True, help="One JSON object a line."),
            click.option("-q", "--quiet", is_flag=True, help="No line for each failure."),
        ]
    ):
        command = option(command)
    return _filters(command)


@click.group()
def failures() -> None:
    """List, show, retry and discard recordings that have a failure in place of an answer.

    \b
    Examples:
      tussis failures list --by-class
      tussis failures list --class corrupt --since 7d
      tussis failures show 17
      tussis failures retry --class expired --prefix s3://clinic/2026/
      tussis failures discard 17 18
    """


@failures.command("list")
@_filters
@click.option("--by-class", "grouped", is_flag=True, help="How many of each class.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(grouped: bool, as_json: bool, limit: int | None, **filters: Any) -> None:
    """List failures, newest first. Times are in UTC."""
    wanted = _wanted((), limit=limit if limit or as_json else _TABLE_LIMIT, **filters)
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
        click.echo("No failure matches." if _narrowed(filters) else "No failures.")
        return
    print_table(shown)
    if len(shown) == wanted.limit:
        click.echo(f"The newest {len(shown):,}: there may be more (--limit, --by-class).")


@failures.command()
@click.argument("analysis_id", type=_ID, metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(analysis_id: int, as_json: bool) -> None:
    """Show one analysis with every attempt at it, also after a retry has answered it."""
    with _store() as store:
        analysis = store.analysis(analysis_id)
        attempts = store.attempts_of(analysis_id)
    if analysis is None:
        raise FailureUnknown(f"no analysis has the id {analysis_id}: look with `tussis failures list`")
    told = as_object(analysis) | {"history": [as_attempt(attempt) for attempt in attempts]}
    if as_json:
        click.echo(json.dumps(told))
    else:
        print_one(told)


@failures.command()
@_choice
@click.option("--priority", type=click.IntRange(0, 9), default=5, show_default=True, help="0 comes first, 9 last.")
@click.pass_context
def retry(ctx: click.Context, /, ids: tuple[int, ...], dry_run: bool, priority: int, **options: Any) -> None:
    """Enqueue failures again: by ID, by filter, or --all.

    A retry is a new attempt of the same analysis, whose history is kept. A worker of any kind takes it and answers with
    its own model; only a model that nobody served is asked for again. A discarded failure is taken up by its ID, or
    with --discarded.
    """
    from dataclasses import replace

    from tussis.shared.broker import connect, redact
    from tussis.shared.ledger import Ledger
    from tussis.shared.settings import load_settings

    settings = load_settings()
    url = settings.need_broker()
    ledger: Ledger = Ledger(connect(url), redact(url))
    sent = opened = 0
    with _store() as store:
        choice = _Choice(store, ids, by_id_discarded=True, **options)
        for batch in choice.batches():
            jobs = [replace(store.retry_job(analysis), priority=priority) for analysis in batch]
            answers = [True] * len(jobs) if dry_run else ledger.open_many(jobs)
            for analysis, job, answer in zip(batch, jobs, answers, strict=True):
                sent, opened = sent + answer, opened + (not answer)
                choice.say(analysis, {"job_id": job.job_id, "sent": answer and not dry_run})
    if dry_run:
        choice.conclude(ctx, f"{sent:,} would be enqueued again")
    else:
        choice.conclude(ctx, f"{sent:,} enqueued again" + (f", {opened:,} open already" if opened else ""))


@failures.command()
@_choice
@click.pass_context
def discard(ctx: click.Context, /, ids: tuple[int, ...], dry_run: bool, **options: Any) -> None:
    """Put failures aside on purpose: by ID, by filter, or --all.

    They leave the list and the counts, a sweep leaves them alone, and `retry ID` takes them up again.
    """
    done = 0
    with _store() as store:
        choice = _Choice(store, ids, by_id_discarded=False, **options)
        for batch in choice.batches():
            done += len(batch) if dry_run else store.discard([analysis.id for analysis in batch])
            for analysis in batch:
                choice.say(analysis, {"discarded": not dry_run})
    choice.conclude(ctx, f"{done:,} would be discarded" if dry_run else f"{done:,} discarded")


class _Choice:
    """The failures that a command's arguments choose, and what is said of them."""

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
        chosen = [bool(ids), everything, _narrowed(filters)]
        if not any(chosen):
            raise click.UsageError("Say which: IDs, a filter (--class, --prefix, --since, --until), or --all.")
        if sum(chosen) > 1 and chosen != [False, True, True]:
            raise click.UsageError("Name IDs, or filter, not both.")
        check_class(filters["error_class"], store)
        if ids:
            filters["discarded"] = by_id_discarded
        self._store = store
        self._ids = ids
        self._wanted = _wanted(ids, **filters)
        self._as_json = as_json
        self._quiet = quiet
        self._seen: set[int] = set()

    def batches(self) -> Iterator[list[Analysis]]:
        """The chosen failures, a batch at a time. Raises :class:`FailureUnknown` when there is none."""
        found = self._store.failures(self._wanted)
        any_found = False
        while batch := list(islice(found, _BATCH)):
            any_found = True
            if self._ids:
                self._seen |= {analysis.id for analysis in batch}
            yield batch
        if not any_found:
            which = f"no failure has the id {', '.join(map(str, self._ids))}" if self._ids else "no failure matches"
            raise FailureUnknown(f"{which}: look with `tussis failures list`")

    def say(self, analysis: Analysis, done: dict[str, Any]) -> None:
        """A line for one failure."""
        if self._quiet:
            return
        if self._as_json:
            click.echo(json.dumps({"analysis_id": analysis.id, "uri": analysis.uri} | done))
        else:
            # Two tabs a line: those of a key are escaped.
            click.echo(f"{analysis.id}\t{analysis.error_class}\t{printable(analysis.uri)}")

    def conclude(self, ctx: click.Context, summary: str) -> None:
        """The summary, and exit status 1 when an ID was no failure."""
        click.echo(summary, err=True)
        missing = [number for number in dict.fromkeys(self._ids) if number not in self._seen]
        for number in missing:
            click.echo(f"tussis: {number} is no failure: look with `tussis failures show {number}`", err=True)
        ctx.exit(1 if missing else 0)


def _store() -> Store:
    from tussis.shared.settings import load_settings
    from tussis.shared.store.repository import Store

    store = Store.connect(load_settings().need_database())
    store.verify_schema()
    return store


def _wanted(
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


def _narrowed(filters: dict[str, Any]) -> bool:
    return any(filters[name] is not None for name in ("error_class", "prefix", "since", "until"))
