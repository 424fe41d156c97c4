"""``tussis report``: a report about one analysis or many, as HTML or PNG."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tussis.shared.text import printable
from tussis.worker.cli.result_options import filter_options, result_filter

if TYPE_CHECKING:
    from tussis.shared.settings import Settings
    from tussis.shared.store.records import Analysis, ResultFilter
    from tussis.shared.store.repository import Store
    from tussis.worker.report.evidence import Evidence, Sound

#: Other analyses of the same key that a report lists.
_OTHERS = 20


@click.command()
@click.argument("source", metavar="[URI|ANALYSIS_ID]", required=False)
@click.option(
    "--out",
    metavar="FILE.html",
    type=click.Path(path_type=Path),
    help="HTML file to write.  [default: report-ANALYSIS_ID.html; with --batch report.html; with --png none]",
)
@click.option("--png", metavar="FILE.png", type=click.Path(path_type=Path), help="Also draw a picture in this file.")
@click.option("--no-audio", is_flag=True, help="Do not embed the recording.")
@click.option("--batch", is_flag=True, help="Report about all analyses that the filters below select.")
@click.option("--labels", metavar="CSV", type=click.Path(path_type=Path), help="File with the columns uri and label.")
@filter_options
def report(
    source: str | None,
    out: Path | None,
    png: Path | None,
    no_audio: bool,
    batch: bool,
    labels: Path | None,
    **filters: Any,
) -> None:
    """Write a report about one analysis, or with --batch about many.

    The report is one HTML file that loads nothing from a network. About one analysis it has the waveform, the mel image
    as the model saw it, the scores and cough events over time, the quality, all numbers, and the recording to listen
    to. It contains the recording unless --no-audio is given. Of several analyses of a URI it shows the newest.

    With --batch it has the probabilities, the results of each day, the slowest analyses, the failures and the warnings.
    With --labels it also compares the results with known labels (cough or no-cough): ROC and precision-recall curves,
    and decisions at other thresholds.

    \b
    Examples:
      tussis report s3://clinic/2026/a.wav
      tussis report 1234 --out a.html --png a.png
      tussis report --batch --since 7d --out week.html
      tussis report --batch --prefix s3://clinic/ --labels labels.csv
    """
    from tussis.shared.settings import load_settings
    from tussis.shared.store.records import ResultFilter
    from tussis.shared.store.repository import Store

    wanted = result_filter(**filters, limit=None)
    if batch:
        if source is not None or png is not None or no_audio:
            raise click.UsageError("--batch takes filters: it takes no URI or analysis id, no --png and no --no-audio")
    elif source is None:
        raise click.UsageError("give the URI of a recording or the id of an analysis, or --batch")
    elif out is not None and out == png:
        raise click.UsageError("--out and --png name the same file")
    elif wanted != ResultFilter() or labels is not None:
        raise click.UsageError("filters and --labels need --batch")
    settings = load_settings()
    with Store.connect(settings.need_database()) as store:
        store.verify_schema()
        if source is None:
            _write_batch(store, wanted, labels, out or Path("report.html"))
        else:
            _write_one(store, source, settings, out, png, with_audio=not no_audio)


def _write_batch(store: Store, wanted: ResultFilter, labels: Path | None, out: Path) -> None:
    from tussis.shared.errors import OutputUnwritable
    from tussis.worker.local_files import check_output
    from tussis.worker.report.batch import Batch
    from tussis.worker.report.batch_page import batch_page
    from tussis.worker.report.labels import read_labels

    check_output(out)
    if labels is not None and out.exists() and labels.exists() and out.samefile(labels):
        raise OutputUnwritable(f"cannot write {out}: it is the file of labels")
    batch = Batch({} if labels is None else read_labels(labels))
    for analysis in store.results(wanted):
        batch.add(analysis)
    _write(out, batch_page(batch, filters_in_words(wanted), datetime.now(UTC), _version()).encode())


def filters_in_words(wanted: ResultFilter) -> list[str]:
    """The filters that are set, as on the command line."""
    from dataclasses import asdict

    words = []
    for name, value in asdict(wanted).items():
        if value is None or (name != "decision" and not value):
            continue
        if name == "decision":
            value = "cough" if value else "no-cough"
        if name == "metadata":
            value = ", ".join(f"{key}={text}" for key, text in value.items())
        words.append(f"{name} {f'{value:%Y-%m-%d %H:%M:%S} UTC' if isinstance(value, datetime) else value}")
    return words


def _write_one(
    store: Store, source: str, settings: Settings, out: Path | None, png: Path | None, *, with_audio: bool
) -> None:
    from tussis.worker.local_files import check_output
    from tussis.worker.report.analysis_page import analysis_page

    analysis, others = _find(store, source)
    if out is None and png is None:
        out = Path(f"report-{analysis.id}.html")
    for path in (out, png):
        if path is not None:
            check_output(path)
    evidence = _gather(store, analysis, others, settings, with_audio=with_audio and out is not None)
    if out is not None:
        _write(out, analysis_page(evidence).encode())
    if png is not None:
        from tussis.worker.report.still import still

        _write(png, still(evidence))


def _find(store: Store, source: str) -> tuple[Analysis, list[Analysis]]:
    """The analysis, and other analyses of its key. Raises :class:`AnalysisUnknown` and :class:`InvalidUri`."""
    from tussis.shared.errors import AnalysisUnknown
    from tussis.shared.uris import ObjectAddress, parse_s3_uri, shown

    #: The largest id of PostgreSQL has 19 digits.
    if source.isascii() and source.isdigit() and len(source) < 19:
        found = store.analysis(int(source))
        if found is None:
            raise AnalysisUnknown(f"no analysis has the id {source}: list ids with `tussis results --json`")
        address = ObjectAddress(found.bucket, found.key)
    elif source.startswith("s3://"):
        found, address = None, parse_s3_uri(source)
    else:
        raise click.UsageError(f"{shown(source)} is neither a URI (s3://bucket/key) nor the id of an analysis")
    every = store.analyses_of_key(address, _OTHERS + 1)
    if found is None:
        if not every:
            raise AnalysisUnknown(f"no analysis of {shown(source)}: check the URI, or enqueue it with `tussis enqueue`")
        found = every[0]
    return found, [one for one in every if one.id != found.id][:_OTHERS]


def _gather(
    store: Store, analysis: Analysis, others: list[Analysis], settings: Settings, *, with_audio: bool
) -> Evidence:
    from tussis.worker.report.evidence import Evidence

    segments, events = store.segments_of(analysis.id), store.events_of(analysis.id)
    sound, no_sound = _listen(analysis, settings, with_audio=with_audio)
    no_player = ""
    if sound is None:
        click.echo(printable(f"tussis: {analysis.uri}: no pictures of the sound: {no_sound}"), err=True)
    elif sound.wav is None:
        no_player = _no_player(sound, with_audio=with_audio)
    return Evidence(
        analysis=analysis,
        segments=segments,
        events=events,
        others=others,
        sound=sound,
        no_sound=no_sound,
        no_player=no_player,
        made_at=datetime.now(UTC),
        version=_version(),
    )


def _listen(analysis: Analysis, settings: Settings, *, with_audio: bool) -> tuple[Sound | None, str]:
    """The sound, or why there is none: the object is missing or changed, or it cannot be read from here."""
    import torch

    from tussis.shared.errors import SettingsInvalid, TussisError
    from tussis.shared.s3 import s3_client
    from tussis.worker.report.listening import sound_of_analysis

    if not analysis.etag:
        return None, "No object was found when the recording was to be analysed."
    # On a busy machine several threads wait for each other: two hours took more than 6 min instead of 30 s.
    torch.set_num_threads(1)
    try:
        return sound_of_analysis(analysis, s3_client(settings), settings, with_audio=with_audio), ""
    except SettingsInvalid:
        raise
    except TussisError as error:
        return None, f"{error.error_class}: {error}"


def _no_player(sound: Sound, *, with_audio: bool) -> str:
    from tussis.worker.report.listening import MAX_PLAYER_S

    if not with_audio:
        return "The recording is not part of this report (--no-audio)."
    return (
        f"The recording is not part of this report: it has {sound.duration_s:,.0f} s, and at most "
        f"{MAX_PLAYER_S:,.0f} s are embedded."
    )


def _write(path: Path, content: bytes) -> None:
    from tussis.worker.local_files import written_whole

    with written_whole(path) as stream:
        stream.write(content)
    click.echo(printable(str(path)))


def _version() -> str:
    from importlib.metadata import version

    return version("tussis")
