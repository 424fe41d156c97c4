"""``tussis export``: results as files for other programs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click

from tussis.shared.text import printable
from tussis.worker.cli.result_options import filter_options, result_filter
from tussis.worker.local.terminal import TerminalBytes

if TYPE_CHECKING:
    from tussis.shared.settings import Settings
    from tussis.shared.store.records import ResultFilter
    from tussis.shared.store.repository import Store

_TABLES: Final = ("csv", "jsonl", "parquet")
_LABELS: Final = ("audacity", "raven")
_STANDARD_OUTPUT: Final = Path("-")


@click.command()
@click.option(
    "--format",
    "file_format",
    type=click.Choice([*_TABLES, *_LABELS]),
    help="csv, jsonl (JSON lines) or parquet: one table. audacity: label files. raven: selection tables.",
)
@click.option(
    "--rows",
    type=click.Choice(["results", "segments", "events"]),
    help="What a row of a table is: an analysis, a segment or a cough event.  [default: results]",
)
@click.option(
    "--out",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="File to write, or - for standard output. For audacity and raven: a new or empty folder.",
)
@click.option("--excel", is_flag=True, help="Write CSV for Excel: with a byte order mark, and no text is a formula.")
@click.option(
    "--clips",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Also write the audio around each cough event to this new or empty folder, as WAV, with index.csv.",
)
@click.option(
    "--padding",
    type=click.FloatRange(0, 60),
    default=0.5,
    show_default=True,
    metavar="SECONDS",
    help="Time in a clip before and after the event.",
)
@filter_options
@click.option("--limit", type=click.IntRange(min=1), help="At most this number of analyses.  [default: all]")
def export(
    file_format: str | None,
    rows: str | None,
    out: Path | None,
    excel: bool,
    clips: Path | None,
    padding: float,
    limit: int | None,
    **options: Any,
) -> None:
    """Write results to a table, to labels for audio editors, or to clips of the coughs. Times are in UTC.

    The newest analysis comes first. docs/export.md lists the columns. A file is written completely or not at all.

    A clip needs the object in S3. A recording whose object is missing or has changed gets no clips. Each is reported,
    and the exit status is then 1.

    \b
    Examples:
      tussis export --format csv --out results.csv --since 7d
      tussis export --format parquet --rows segments --newest --out segments.parquet
      tussis export --format jsonl --rows events --out - | head
      tussis export --format raven --newest --prefix s3://clinic/2026/ --out selections
      tussis export --clips evidence --newest --decision cough
    """
    from tussis.shared.settings import load_settings
    from tussis.shared.store.exports import EXPORT_TIMEOUT_S
    from tussis.shared.store.repository import Store

    _check(file_format, rows, out, excel, clips)
    wanted = result_filter(**options, limit=limit)
    settings = load_settings()
    with (
        _terminated_as_interrupted(),
        Store.connect(settings.need_database(), statement_timeout_s=EXPORT_TIMEOUT_S) as store,
    ):
        store.verify_schema()
        given = sorted(name for name, value in options.items() if value not in (None, False, ()))
        _note(store, {"format": file_format, "rows": rows, "clips": clips is not None, "filters": given})
        if out is not None and file_format in _TABLES:
            _table(store, wanted, file_format, rows or "results", out, excel)
        elif out is not None:
            _labels(store, wanted, file_format, out)
        if clips is not None:
            click.get_current_context().exit(_clips(store, wanted, clips, padding, settings))


def _check(file_format: str | None, rows: str | None, out: Path | None, excel: bool, clips: Path | None) -> None:
    """Raise :class:`click.UsageError` for options that contradict each other."""
    if (file_format is None) != (out is None):
        raise click.UsageError("--format and --out belong together: give both")
    if file_format is None and clips is None:
        raise click.UsageError("nothing to write: give --format and --out, or --clips")
    if rows is not None and file_format not in _TABLES:
        raise click.UsageError(f"--rows is for {', '.join(_TABLES)}: the other formats have cough events")
    if excel and file_format != "csv":
        raise click.UsageError("--excel is for --format csv")
    if out == _STANDARD_OUTPUT and file_format in _LABELS:
        raise click.UsageError(f"--format {file_format} writes several files: give a folder as --out")
    if out == _STANDARD_OUTPUT and file_format == "parquet" and sys.stdout.isatty():
        raise click.UsageError("a terminal cannot show Parquet: give a file as --out, or use a pipe")
    if clips == _STANDARD_OUTPUT:
        raise click.UsageError("--clips needs a folder")


def _note(store: Store, details: dict[str, Any]) -> None:
    """Write the export into the audit trail. A replica, and a login that may only read, can export all the same."""
    from tussis.shared.errors import DatabaseReadOnly, DatabaseRefused
    from tussis.worker.cli.who import who_of

    try:
        store.note_deed("export", who_of(None), details)
    except (DatabaseReadOnly, DatabaseRefused) as error:
        click.echo(f"tussis: this export is not in the audit trail: {error}", err=True)


def _table(store: Store, wanted: ResultFilter, file_format: str, rows: str, out: Path, excel: bool) -> None:
    from tussis.shared.store.export_columns import COLUMNS, ExportRows
    from tussis.worker.export.tables import write_csv, write_json_lines

    what = ExportRows(rows)
    columns = COLUMNS[what]
    if file_format == "parquet":
        # Imported before the output is made: it can be missing.
        from tussis.worker.export.parquet import write_parquet
    with _output(out) as stream, closing(store.export(what, wanted)) as batches:
        if file_format == "parquet":
            count = write_parquet(stream, columns, batches)
        elif file_format == "jsonl":
            count = write_json_lines(stream, columns, batches)
        else:
            count = write_csv(stream, columns, batches, excel=excel)
    if out != _STANDARD_OUTPUT:
        click.echo(f"{printable(str(out))}: {count:,} {rows}")


@contextmanager
def _output(out: Path) -> Iterator[BinaryIO]:
    """Standard output, or a file that is written completely or not at all. Raises :class:`OutputUnwritable`."""
    from tussis.worker.local_files import check_output, written_whole

    if out == _STANDARD_OUTPUT:
        # On a terminal, the text goes through the guard of the standard streams.
        stream: Any = TerminalBytes(sys.stdout) if sys.stdout.isatty() else sys.stdout.buffer
        yield stream
        stream.flush()
        return
    check_output(out)
    with written_whole(out) as stream:
        yield stream


def _labels(store: Store, wanted: ResultFilter, file_format: str | None, out: Path) -> None:
    from tussis.worker.export.labels import write_audacity, write_raven

    with closing(store.events_to_extract(wanted)) as events:
        written = write_audacity(out, events) if file_format == "audacity" else write_raven(out, events)
    click.echo(f"{printable(str(out))}: {written.events:,} cough events in {written.files:,} files")


def _clips(store: Store, wanted: ResultFilter, folder: Path, padding_s: float, settings: Settings) -> int:
    """Write the clips; returns the exit status."""
    from tussis.shared.s3 import s3_client
    from tussis.worker.export.clips import Extraction, write_clips
    from tussis.worker.pipeline.prepare import limits_of

    extraction = Extraction(
        s3=s3_client(settings),
        limits=limits_of(settings),
        padding_s=padding_s,
        download_timeout_s=settings.download_timeout_s,
        verify_md5=settings.verify_md5,
    )
    with closing(store.events_to_extract(wanted)) as events:
        done = write_clips(folder, events, extraction, lambda line: click.echo(f"tussis: {printable(line)}", err=True))
    report = f"{printable(str(folder))}: {done.clips:,} clips from {done.recordings:,} recordings"
    click.echo(f"{report}; {done.failed:,} failed" if done.failed else report)
    return 1 if done.failed else 0


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Make SIGTERM an interrupt, so that unfinished files are deleted."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
