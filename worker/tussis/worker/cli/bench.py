"""``tussis bench``: measurements to size a deployment on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from tussis.shared.cores import available_cores
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


@click.group()
def bench() -> None:
    """Measure speed and memory on this machine, to size a deployment.

    Every command prints a table. --json also writes it to a file. The machine should do nothing else.
    """


@bench.command()
@rounds_option
@only_option
@recordings_option
@model_option
@original_option
@concurrency_option
@common_options
def pipeline(
    rounds: int | None,
    only: tuple[str, ...],
    recordings: Path | None,
    model: Path | None,
    original: Path | None,
    concurrency: int | None,
    json_file: Path | None,
    quick: bool,
) -> None:
    """Recordings per second from enqueue to committed rows, on embedded servers.

    The numbers are compared with the floor: `session.run` of the original float32 graph, and nothing else. Each round
    runs the floor and Tussis one after the other. The table has medians.

    \b
    Example:
      tussis bench pipeline --only 10s --only mix --json pipeline.json
    """
    original = original_of(original)
    from tussis.worker.bench.material import NAMES
    from tussis.worker.bench.pipeline import PipelineMeasurement, measure

    measurement = PipelineMeasurement(
        original=original,
        model=model.absolute() if model is not None else original,
        names=only or NAMES,
        rounds=rounds or (3 if quick else 5),
        recordings=recordings_folder(recordings),
        children=concurrency or available_cores(),
    )
    run_benchmark(json_file, lambda: measure(measurement, quick=quick, command=command_line(), say=say))


@bench.command()
@rounds_option
@original_option
@click.option(
    "--model",
    "others",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Another model to measure, for instance the int8 one; can be repeated.",
)
@click.option("--threads", multiple=True, type=click.IntRange(1), help="Threads of one run [1, and one per core].")
@common_options
def inference(
    rounds: int | None,
    original: Path | None,
    others: tuple[Path, ...],
    threads: tuple[int, ...],
    json_file: Path | None,
    quick: bool,
) -> None:
    """CPU time of the model for each segment: the original graph and its rewritten forms."""
    models = [original_of(original), *(path.absolute() for path in others)]
    from tussis.worker.bench.inference import measure

    count = rounds or (3 if quick else 5)
    run_benchmark(
        json_file,
        lambda: measure(models, threads=threads or None, rounds=count, quick=quick, command=command_line()),
    )


@bench.command()
@click.option("--count", type=click.IntRange(100), help="The number of recordings [10,000].")
@original_option
@common_options
def memory(count: int | None, original: Path | None, json_file: Path | None, quick: bool) -> None:
    """Memory of a worker while it analyses many recordings."""
    model = original_of(original)
    from tussis.worker.bench.memory import measure

    run_benchmark(json_file, lambda: measure(model, count=count, quick=quick, command=command_line(), say=say))


@bench.command()
@rounds_option
@original_option
@click.option("--concurrency", type=click.IntRange(1, 256), help="The children of the worker [two per core].")
@click.option("--device-index", type=click.IntRange(0), default=0, show_default=True, help="The number of the GPU.")
@click.option(
    "--provider",
    type=click.Choice(["cuda", "tensorrt", "cpu"]),
    default="cuda",
    show_default=True,
    help="As for tussis worker gpu; cpu tests the measurement without a GPU.",
)
@common_options
def device(
    rounds: int | None,
    original: Path | None,
    concurrency: int | None,
    device_index: int,
    provider: str,
    json_file: Path | None,
    quick: bool,
) -> None:
    """A GPU worker, from enqueue to committed rows, compared with the model alone on that GPU. Recordings of 10 s."""
    model = original_of(original)
    from tussis.worker.bench.device import DeviceMeasurement, measure
    from tussis.worker.device.arguments import OnDevice, Provider

    measurement = DeviceMeasurement(
        model=model,
        on=OnDevice(Provider(provider), device_index),
        children=concurrency or 2 * available_cores(),
        rounds=rounds or (2 if quick else 5),
    )
    run_benchmark(json_file, lambda: measure(measurement, quick=quick, command=command_line(), say=say))
