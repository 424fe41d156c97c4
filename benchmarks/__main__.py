"""``python -m benchmarks``: measurements for developers, in a checkout."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tussis.shared.cores import available_cores
from tussis.shared.errors import TussisError
from tussis.shared.text import printable
from tussis.worker.cli.bench_options import (
    command_line,
    common_options,
    concurrency_option,
    model_option,
    only_option,
    original_of,
    original_option,
    recordings_folder,
    recordings_option,
    rounds_option,
    run_benchmark,
    say,
)

served_option = click.option(
    "--model",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The model of the worker [the reference model].",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def benchmarks() -> None:
    """Measure a change to Tussis. `tussis bench` has the measurements that size a deployment.

    Every command prints a table. --json also writes it to a file. The machine should do nothing else.
    """


@benchmarks.command()
@rounds_option
@only_option
@recordings_option
@model_option
@original_option
@click.option(
    "--against",
    type=click.Choice(["both", "celery", "backend", "none"]),
    default="both",
    show_default=True,
    help="The baselines to run: the plain Celery pipeline, the loop of the old backend.",
)
@concurrency_option
@common_options
def pipeline(
    rounds: int | None,
    only: tuple[str, ...],
    recordings: Path | None,
    model: Path | None,
    original: Path | None,
    against: str,
    concurrency: int | None,
    json_file: Path | None,
    quick: bool,
) -> None:
    """`tussis bench pipeline`, compared with the baselines in the same rounds.

    The floor and the baselines run the original float32 model.

    \b
    Example:
      python -m benchmarks pipeline --only 10s --only mix --json pipeline.json
    """
    from benchmarks.baselines import HttpBackend, PlainCelery
    from benchmarks.pipeline import measure
    from tussis.worker.bench.material import NAMES
    from tussis.worker.bench.pipeline import PipelineMeasurement

    original = original_of(original)
    measurement = PipelineMeasurement(
        original=original,
        model=model.absolute() if model is not None else original,
        names=only or NAMES,
        rounds=rounds or (3 if quick else 5),
        recordings=recordings_folder(recordings),
        children=concurrency or available_cores(),
    )
    kinds = {"both": (PlainCelery, HttpBackend), "celery": (PlainCelery,), "backend": (HttpBackend,), "none": ()}
    run_benchmark(json_file, lambda: measure(measurement, kinds[against], quick=quick, command=command_line(), say=say))


@benchmarks.command()
@rounds_option
@only_option
@recordings_option
@served_option
@common_options
def bound(
    rounds: int | None,
    only: tuple[str, ...],
    recordings: Path | None,
    model: Path | None,
    json_file: Path | None,
    quick: bool,
) -> None:
    """The pipeline, compared with processes that decode, make images and run the model, and do nothing else.

    The floor runs the model of the worker.

    \b
    Example:
      python -m benchmarks bound --only 10s --only mix
    """
    from benchmarks.bound import measure
    from tussis.shared.settings import load_settings
    from tussis.worker.bench.material import NAMES
    from tussis.worker.bench.pipeline import PipelineMeasurement

    chosen = _served(model)
    measurement = PipelineMeasurement(
        original=chosen,
        model=chosen,
        names=only or NAMES,
        rounds=rounds or (3 if quick else 5),
        recordings=recordings_folder(recordings),
    )
    cache = load_settings().model_cache_dir
    run_benchmark(json_file, lambda: measure(measurement, cache, quick=quick, command=command_line(), say=say))


@benchmarks.command()
@rounds_option
@recordings_option
@original_option
@common_options
def audit(
    rounds: int | None, recordings: Path | None, original: Path | None, json_file: Path | None, quick: bool
) -> None:
    """`tussis audit`, compared with one analysis for each variant that it scores."""
    from benchmarks.audit import measure

    model, real = original_of(original), recordings_folder(recordings)
    run_benchmark(
        json_file,
        lambda: measure(
            model, rounds=rounds or (1 if quick else 3), quick=quick, recordings=real, command=command_line()
        ),
    )


@benchmarks.command()
@recordings_option
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".tussis/benchmarks"),
    show_default=True,
    help="Folder of the segment probabilities. They are computed once for each model.",
)
@common_options
def events(recordings: Path | None, cache: Path, json_file: Path | None, quick: bool) -> None:
    """Rules for cough events, on recordings with coughs at known places, with the model that ships.

    It needs the audio pack and the extra `training`. docs/cough-events.md has the result.
    """
    from benchmarks.events.measure import measure
    from tussis.worker.detector.shipped import default_model

    data, model = recordings_folder(recordings), default_model()
    if data is None or model is None:
        raise click.UsageError("the audio pack (--recordings or TUSSIS_TEST_DATA) or the reference model is missing")
    run_benchmark(
        json_file,
        lambda: measure(data=data, model=model, cache=cache, quick=quick, command=command_line(), say=say),
    )


@benchmarks.command()
@common_options
def jail(json_file: Path | None, quick: bool) -> None:
    """The time to decode a recording in the jail, beside the same in the own process."""
    from benchmarks.jail import measure

    run_benchmark(json_file, lambda: measure(rounds=20 if quick else 100, command=command_line()))


@benchmarks.command()
@click.option("--files", type=click.IntRange(1), default=20_000, show_default=True, help="Number of mutated files.")
@click.option("--seed", type=int, default=16, show_default=True, help="The same seed gives the same files.")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), help="Folder for files with a finding.")
@recordings_option
def fuzz(files: int, seed: int, keep: Path | None, recordings: Path | None) -> None:
    """Decode mutated files of the audio pack in the jail. A crash, a hang or a foreign error ends it with status 1."""
    from benchmarks.fuzz import fuzz_files, fuzz_protocol

    folder = recordings_folder(recordings)
    if folder is None:
        raise click.UsageError("the audio pack (--recordings or TUSSIS_TEST_DATA) is missing")
    done = fuzz_files(folder, files, seed)
    click.echo(f"files: {dict(done.outcomes.most_common())}")
    click.echo(f"datagrams: {dict(fuzz_protocol(files, seed).most_common())}")
    for number, (what, data) in enumerate(done.findings):
        click.echo(printable(f"finding {number}: {what}"))
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{seed}-{number}").write_bytes(data)
    if done.findings:
        raise SystemExit(1)


@benchmarks.command()
@original_option
@common_options
def gateway(original: Path | None, json_file: Path | None, quick: bool) -> None:
    """The time from the request of an old client to its answer, for a recording of 2 s on an idle worker."""
    from benchmarks.gateway import measure

    model = original_of(original)
    run_benchmark(json_file, lambda: measure(model, requests=20 if quick else 100, command=command_line()))


@benchmarks.command()
@served_option
@common_options
def latency(model: Path | None, json_file: Path | None, quick: bool) -> None:
    """The time from enqueueing one recording of 2 s until its outcome, on an idle worker and beside a backlog."""
    from benchmarks.latency import Sizes, measure

    chosen = _served(model)
    sizes = Sizes(idle=40, beside=16, backlog=600) if quick else Sizes(idle=500, beside=256, backlog=10_000)
    run_benchmark(json_file, lambda: measure(chosen, sizes, command=command_line()))


@benchmarks.command()
@rounds_option
@only_option
@recordings_option
@common_options
def preprocess(
    rounds: int | None, only: tuple[str, ...], recordings: Path | None, json_file: Path | None, quick: bool
) -> None:
    """From the waveform to the input of the model, compared with one transform call for each segment."""
    from benchmarks.preprocess import measure

    real = recordings_folder(recordings)
    run_benchmark(
        json_file,
        lambda: measure(names=only, rounds=rounds or 5, quick=quick, recordings=real, command=command_line()),
    )


@benchmarks.command()
@rounds_option
@original_option
@common_options
def processes(rounds: int | None, original: Path | None, json_file: Path | None, quick: bool) -> None:
    """Scaling of CPU-bound work with the number of processes: from bytes to scores, without servers."""
    from benchmarks.processes import measure

    model = original_of(original)
    run_benchmark(
        json_file, lambda: measure(model, rounds=rounds or (3 if quick else 5), quick=quick, command=command_line())
    )


@benchmarks.command()
@rounds_option
@click.option("--waiting", type=click.IntRange(2_000), help="Waiting messages in the larger case [1,000,000].")
@common_options
def queue(rounds: int | None, waiting: int | None, json_file: Path | None, quick: bool) -> None:
    """Bulk enqueueing, and the cost of a message with few or very many waiting messages.

    A million waiting messages take about 3 GB of memory in the embedded broker.
    """
    from benchmarks.queueing import measure

    run_benchmark(
        json_file, lambda: measure(rounds=rounds or 3, quick=quick, many=waiting, command=command_line(), say=say)
    )


@benchmarks.command()
@rounds_option
@click.option("--rows", "count", type=click.IntRange(1_000, 100_000_000), help="Rows of segments [1,000,000].")
@common_options
def rows(rounds: int | None, count: int | None, json_file: Path | None, quick: bool) -> None:
    """The documented queries, and new results, in a database with many rows.

    50,000,000 rows need about 20 GB of disk and half an hour.
    """
    from benchmarks.rows import measure

    number = count or (50_000 if quick else 1_000_000)
    run_benchmark(json_file, lambda: measure(rows=number, rounds=rounds or 5, command=command_line(), say=say))


@benchmarks.command()
@rounds_option
@original_option
@common_options
def start(rounds: int | None, original: Path | None, json_file: Path | None, quick: bool) -> None:
    """The time until a worker is ready, and the time of `tussis --help`."""
    from benchmarks.start import measure

    model = original_of(original)
    run_benchmark(json_file, lambda: measure(model, rounds=rounds or 5, quick=quick, command=command_line()))


@benchmarks.command()
@rounds_option
@common_options
def store(rounds: int | None, json_file: Path | None, quick: bool) -> None:
    """Claims and results as workers write them: segment rows per second, and the time in addition to one fsync."""
    from benchmarks.store import measure

    run_benchmark(json_file, lambda: measure(rounds=rounds or (3 if quick else 5), quick=quick, command=command_line()))


def _served(model: Path | None) -> Path:
    """The model given, else the reference model; a ResNet-18 with random weights when none ships."""
    from tussis.worker.detector.shipped import default_model

    return model.absolute() if model is not None else default_model() or original_of(None)


if __name__ == "__main__":
    try:
        benchmarks(prog_name="python -m benchmarks")
    except TussisError as error:
        sys.exit(f"tussis: {printable(str(error))}")
