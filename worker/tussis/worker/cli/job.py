"""``tussis job``: the state and the result of jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from tussis.shared.text import printable

if TYPE_CHECKING:
    from tussis.worker.jobs.reports import JobReports

#: Exit status if jobs are still open after --timeout.
STILL_OPEN = 3


@click.command()
@click.argument("job_ids", nargs=-1, metavar="ID...")
@click.option("--wait", is_flag=True, help="Wait until the jobs have ended.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Longest wait of --wait; exit status 3 if jobs are still open then.  [no limit]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each job.")
@click.option("--reproduce", is_flag=True, help="Repeat the analysis of a job here and compare it with the stored one.")
@click.option(
    "--model",
    help="With --reproduce: path or s3:// URI of the model of the analysis.  [default: found by its SHA-256]",
)
@click.pass_context
def job(
    ctx: click.Context,
    job_ids: tuple[str, ...],
    wait: bool,
    timeout_s: float | None,
    as_json: bool,
    reproduce: bool,
    model: str | None,
) -> None:
    """Show the state of jobs, and their results or failures.

    ID is the job id that `tussis enqueue` printed. A job is open while it waits in its queue, is in flight, or is
    deferred until its next attempt. After a failure it is open again if it is enqueued again. A job whose result
    `tussis retain` deleted is unknown. If it deleted only the segments, the output says so ("segments": null).

    Without TUSSIS_DATABASE_URL, the report has only what the broker knows: open jobs, and the outcomes of jobs that
    ended within TUSSIS_OUTCOME_TTL_S. With --wait, a report is printed as soon as its job has ended.

    With --reproduce the same bytes are fetched again and analysed on this machine, with the model, the profile and the
    coverage of the row. It needs the extra cpu and access to the object store, and writes nothing. It prints the values
    of the row beside those found here, the versions, and a verdict in the last line.

    The exit status is 1 if a job failed, was cancelled or is unknown, 3 if jobs are still open after --timeout,
    otherwise 0. With --reproduce it is 0 if both agree within the tolerances (probabilities within 1e-3, the same
    decision and the same facts, or the same failure), otherwise 1.
    """
    if not job_ids:
        raise click.UsageError("Missing argument 'ID'.")
    if timeout_s is not None and not wait:
        raise click.UsageError("--timeout needs --wait.")
    if model is not None and not reproduce:
        raise click.UsageError("--model needs --reproduce.")
    if reproduce and (wait or len(job_ids) > 1):
        raise click.UsageError("--reproduce takes one ID, and no --wait.")
    from tussis.shared.errors import JobUnknown
    from tussis.shared.settings import load_settings
    from tussis.shared.uris import shown
    from tussis.worker.cli.job_views import print_report
    from tussis.worker.jobs.reports import JobReports

    for job_id in job_ids:
        if not job_id.isascii():
            raise JobUnknown(f"{shown(job_id)} is not a job id: use the UUID that `tussis enqueue` printed")
    settings = load_settings()
    if reproduce:
        from tussis.worker.cli import job_reproduce

        settings.need_database()
        with JobReports.connect(settings) as reports:
            answer = reports.ended(job_ids[0])
        ctx.exit(0 if job_reproduce.reproduce(answer, model, settings, as_json=as_json) else 1)
    status, printed, still_open = 0, 0, list[str]()
    with JobReports.connect(settings) as reports:
        for job_id in _as_they_end(reports, list(dict.fromkeys(job_ids)), wait, timeout_s, still_open):
            try:
                report = reports.of(job_id)
            except JobUnknown as error:
                if len(job_ids) == 1:
                    raise
                _print_unknown(job_id, error, as_json)
                status = 1
                continue
            if report["state"] in ("failed", "cancelled"):
                status = 1
            if as_json:
                click.echo(json.dumps(report))
            else:
                click.echo("" if printed else None, nl=bool(printed))
                print_report(report)
            printed += 1
    if still_open:
        click.echo(f"tussis: {len(still_open)} jobs are still open after {timeout_s:g} s", err=True)
        status = STILL_OPEN
    ctx.exit(status)


def _as_they_end(
    reports: JobReports, job_ids: Sequence[str], wait: bool, timeout_s: float | None, still_open: list[str]
) -> Iterator[str]:
    """The ids in their order; or, when waiting, in the order in which the jobs end. Those that do not end come last."""
    from tussis.shared.errors import JobUnknown, WaitTimeout

    if not wait:
        yield from job_ids
        return
    statuses = reports.reader.statuses(job_ids)
    awaited = dict.fromkeys(job_id for job_id in job_ids if statuses[job_id].open_since is not None)
    yield from (job_id for job_id in job_ids if job_id not in awaited)
    try:
        for outcome in reports.reader.wait_each(list(awaited), timeout_s):
            del awaited[outcome.job_id]
            yield outcome.job_id
    except WaitTimeout as error:
        still_open += error.open_ids
    except JobUnknown:
        pass  # It ended, and its outcome is not kept any more. The report tells what is known.
    yield from awaited


def _print_unknown(job_id: str, error: Exception, as_json: bool) -> None:
    if as_json:
        unknown: dict[str, Any] = {"job_id": job_id, "state": "unknown"}
        click.echo(json.dumps(unknown | {"error": {"class": "job_unknown", "message": str(error)}}))
    else:
        click.echo(printable(f"tussis: {error}"), err=True)
