"""The options that select analyses, for every command that lists or exports results."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tussis.shared.messages import is_job_id, is_model_name
from tussis.shared.states import AnalysisState
from tussis.shared.uris import shown
from tussis.worker.cli.moments import check_span, moment

if TYPE_CHECKING:
    from tussis.shared.store.records import ResultFilter

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _model(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None or is_model_name(value):
        return value
    raise click.BadParameter(f"{shown(value)} is not a model: write NAME or NAME@VERSION")


def _metadata(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    wanted: dict[str, str] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{shown(value)} is not KEY=VALUE: write for example site=north")
        if not storable(value):
            raise click.BadParameter(f"{shown(value)} has characters that metadata cannot have: write it in UTF-8")
        if wanted.setdefault(name, text) != text:
            raise click.BadParameter(f"{shown(name)} has two values, and no recording has both: give one of them")
    return wanted


def storable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # bytes of the command line that are not UTF-8
        return False
    return "\x00" not in text


def _job_ids(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...] | None:
    for value in values:
        if not is_job_id(value):
            raise click.BadParameter(f"{shown(value)} is not a job id: use the UUID that `tussis enqueue` printed")
    return values or None


_OPTIONS = (
    click.option(
        "--since",
        metavar="TIME",
        callback=moment,
        help="Only analyses with a first attempt from this time on: 2026-11-22, 2026-11-22T14:30 (UTC), or 2h, 7d "
        "(ago).",
    ),
    click.option(
        "--until", metavar="TIME", callback=moment, help="Only analyses with a first attempt before this time."
    ),
    click.option("--decision", type=click.Choice(["cough", "no-cough"]), help="Only results with this decision."),
    click.option(
        "--state", type=click.Choice([state.value for state in AnalysisState]), help="Only analyses in this state."
    ),
    click.option("--prefix", metavar="S3_URI", help="Only recordings under s3://bucket/start-of-key."),
    click.option(
        "--model",
        metavar="NAME[@VERSION]",
        callback=_model,
        help="Only analyses by this model, or by any version of it.",
    ),
    click.option(
        "--metadata",
        metavar="KEY=VALUE",
        multiple=True,
        callback=_metadata,
        help="Only recordings whose metadata has this value, compared as text. Can be repeated; all must match.",
    ),
    click.option(
        "--job",
        "job_ids",
        metavar="ID",
        multiple=True,
        callback=_job_ids,
        help="Only the analysis that answers this job. Can be repeated.",
    ),
    click.option(
        "--newest",
        is_flag=True,
        help="Only the newest analysis of each recording. --decision and --state apply to this analysis, the other "
        "options to all.",
    ),
)


def filter_options(command: _Function) -> _Function:
    """Decorator: add the options. The command passes their values to :func:`result_filter`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def result_filter(
    *,
    since: datetime | None,
    until: datetime | None,
    decision: str | None,
    state: str | None,
    prefix: str | None,
    model: str | None,
    metadata: dict[str, str],
    job_ids: tuple[str, ...] | None,
    newest: bool,
    limit: int | None,
) -> ResultFilter:
    """The filter of the options. Raises :class:`click.UsageError` if it can match nothing."""
    from tussis.shared.store.records import ResultFilter

    check_span(since, until)
    return ResultFilter(
        since=since,
        until=until,
        decision=None if decision is None else decision == "cough",
        state=None if state is None else AnalysisState(state),
        prefix=prefix,
        model=model,
        metadata=metadata,
        job_ids=job_ids,
        newest=newest,
        limit=limit,
    )
