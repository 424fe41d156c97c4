"""``tussis bench``: how fast it is here."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tussis.shared.cores import available_cores
from tussis.shared.text import printable

if TYPE_CHECKING:
    from tussis.worker.bench.report import Report

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def bench() -> None:
    """Measure, against the model's own floor and against baselines.

    Every command prints a table, and writes it as JSON with --json. Measure on a machine that does nothing else.
    """


def _common(function: F) -> F:
    """The options that every measurement has."""
    json_file = click.option(
        "--json",
        "json_file",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Write it there too.",
    )
    quick = click.option("--quick", is_flag=True, help="Less of everything: seconds, and rougher numbers.")
    return quick(json_file(function))


def _command() -> str:
    """What was typed."""
    return printable(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))


def _real_recordings(given: Path | None) -> Path | None:
    """The folder given, else the tests' one."""
    named = os.environ.get("TUSSIS_TEST_DATA")
    return given or (Path(named) if named else None)


def _original(given: Path | None) -> Path:
    """The model given, else the random ResNet-18, exported when it is not there yet."""
    from tussis.shared.settings import load_settings

    if given is not None:
        return given.absolute()
    cache = load_settings().model_cache_dir
    from tussis.worker.bench.floor import original_model

    return original_model(cache.absolute())


def _say(line: str) -> None:
    """Progress, beside the report."""
    click.echo(line, err=True)


def _measure(json_file: Path | None, measure: Callable[[], Report]) -> None:
    """Measure and report; an interrupt stops everything that was started."""
    from tussis.shared.errors import OutputUnwritable
    from tussis.worker.bench.report import show, write_json
    from tussis.worker.local.interrupts import Interrupted, interrupts

    with interrupts() as handled:
        try:
            report = measure()
        except Interrupted as interrupted:
            click.echo(f"tussis: stopped by {interrupted.cause}; no report", err=True)
            click.get_current_context().exit(interrupted.status)
        handled.disarm()
    show(report, click.echo)
    if json_file is not None:
        try:
            write_json(report, json_file)
        except OSError as error:
            raise OutputUnwritable(f"cannot write {json_file}: {error.strerror}") from error


_rounds = click.option("--rounds", type=click.IntRange(1, 100), help="How often each is measured.")
_only = click.option(
    "--only",
    multiple=True,
    type=click.Choice(["2s", "10s", "60s", "mix"]),
    help="Which recordings; may be given more than once [all].",
)
_recordings = click.option(
    "--recordings",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Real recordings for the mix [TUSSIS_TEST_DATA; else a synthetic mix].",
)
_original_option = click.option(
    "--original",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="MODEL",
    help="The float32 model [a ResNet-18 with random weights, exported once].",
)


@bench.command()
@_rounds
@_only
@_recordings
@click.option(
    "--model",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="What the worker serves [the original, which floor and baselines run].",
)
@_original_option
@click.option(
    "--baseline",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Where the baselines are [benchmarks/baseline of a checkout].",
)
@click.option(
    "--against",
    type=click.Choice(["both", "celery", "backend", "none"]),
    default="both",
    show_default=True,
    help="Which baselines run: the plain Celery pipeline, the old backend's loop.",
)
@click.option("--concurrency", type=click.IntRange(1, 256), help="Processes of each program [one a core].")
@_common
def pipeline(
    rounds: int | None,
    only: tuple[str, ...],
    recordings: Path | None,
    model: Path | None,
    original: Path | None,
    baseline: Path | None,
    against: str,
    concurrency: int | None,
    json_file: Path | None,
    quick: bool,
) -> None:
    """Recordings a second from enqueue to committed rows, on embedded servers.

    The floor is `session.run` of the original float32 graph alone, tensors ready. Each round runs the floor, Tussis and
    the baselines one after the other; the table has medians.

    \b
    Example:
      tussis bench pipeline --only 10s --only mix --json pipeline.json
    """
    original = _original(original)
    real = _real_recordings(recordings)
    from tussis.worker.bench.baselines import CELERY, HTTP
    from tussis.worker.bench.material import NAMES
    from tussis.worker.bench.pipeline import Plan, measure

    plan = Plan(
        original=original,
        model=model.absolute() if model is not None else original,
        names=only or NAMES,
        rounds=rounds or (3 if quick else 5),
        recordings=real,
        baseline=baseline,
        against={"both": (CELERY, HTTP), "celery": (CELERY,), "backend": (HTTP,), "none": ()}[against],
        children=concurrency or available_cores(),
    )
    _measure(json_file, lambda: measure(plan, quick=quick, command=_command(), say=_say))


@bench.command()
@_rounds
@_only
@_recordings
@_common
def preprocess(
    rounds: int | None, only: tuple[str, ...], recordings: Path | None, json_file: Path | None, quick: bool
) -> None:
    """From the waveform to the network's input, against one transform call a segment."""
    real = _real_recordings(recordings)
    from tussis.worker.bench.preprocess import measure

    _measure(
        json_file,
        lambda: measure(names=only, rounds=rounds or 5, quick=quick, recordings=real, command=_command()),
    )


@bench.command()
@_rounds
@_original_option
@click.option(
    "--model",
    "others",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Another model beside the original, such as its int8 one; may be given more than once.",
)
@click.option("--threads", multiple=True, type=click.IntRange(1), help="Threads of one run [1, and one a core].")
@_common
def inference(
    rounds: int | None,
    original: Path | None,
    others: tuple[Path, ...],
    threads: tuple[int, ...],
    json_file: Path | None,
    quick: bool,
) -> None:
    """What a segment costs in the model: the original graph, and its rewritten forms."""
    models = [_original(original), *(path.absolute() for path in others)]
    from tussis.worker.bench.inference import measure

    count = rounds or (3 if quick else 5)
    _measure(json_file, lambda: measure(models, threads=threads or None, rounds=count, quick=quick, command=_command()))


@bench.command()
@_rounds
@_original_option
@_common
def processes(rounds: int | None, original: Path | None, json_file: Path | None, quick: bool) -> None:
    """How CPU-bound work scales with processes: bytes to scores, without servers."""
    model = _original(original)
    from tussis.worker.bench.processes import measure

    _measure(json_file, lambda: measure(model, rounds=rounds or (3 if quick else 5), quick=quick, command=_command()))


@bench.command()
@_rounds
@click.option("--waiting", type=click.IntRange(2_000), help="How many wait in the larger case [1,000,000].")
@_common
def queue(rounds: int | None, waiting: int | None, json_file: Path | None, quick: bool) -> None:
    """Bulk enqueueing, and what a message costs when few or very many wait behind it.

    A million waiting messages take some 3 GB of the embedded broker's memory.
    """
    from tussis.worker.bench.queue import measure

    _measure(
        json_file,
        lambda: measure(rounds=rounds or 3, quick=quick, many=waiting, command=_command(), say=_say),
    )


@bench.command()
@click.option("--count", type=click.IntRange(100), help="Recordings [10,000].")
@_original_option
@_common
def memory(count: int | None, original: Path | None, json_file: Path | None, quick: bool) -> None:
    """A worker's memory while it analyses many recordings."""
    model = _original(original)
    from tussis.worker.bench.memory import measure

    _measure(json_file, lambda: measure(model, count=count, quick=quick, command=_command(), say=_say))


@bench.command()
@_rounds
@_original_option
@_common
def start(rounds: int | None, original: Path | None, json_file: Path | None, quick: bool) -> None:
    """How long a worker takes to be ready, and the command line to answer."""
    model = _original(original)
    from tussis.worker.bench.start import measure

    _measure(json_file, lambda: measure(model, rounds=rounds or 5, quick=quick, command=_command()))


@bench.command()
@_rounds
@_original_option
@click.option("--concurrency", type=click.IntRange(1, 256), help="The worker's children [two a core].")
@click.option("--device-index", type=click.IntRange(0), default=0, show_default=True, help="Which GPU.")
@click.option(
    "--provider",
    type=click.Choice(["cuda", "tensorrt", "cpu"]),
    default="cuda",
    show_default=True,
    help="As for tussis worker gpu; cpu tries the measurement without a GPU.",
)
@_common
def device(
    rounds: int | None,
    original: Path | None,
    concurrency: int | None,
    device_index: int,
    provider: str,
    json_file: Path | None,
    quick: bool,
) -> None:
    """A GPU worker, enqueue to committed rows, against the model alone on the same GPU; recordings of 10 s."""
    model = _original(original)
    from tussis.worker.bench.device import Plan, measure
    from tussis.worker.device.arguments import OnDevice, Provider

    plan = Plan(
        model=model,
        on=OnDevice(Provider(provider), device_index),
        children=concurrency or 2 * available_cores(),
        rounds=rounds or (2 if quick else 5),
    )
    _measure(json_file, lambda: measure(plan, quick=quick, command=_command(), say=_say))


@bench.command()
@_rounds
@_common
def store(rounds: int | None, json_file: Path | None, quick: bool) -> None:
    """Claims and results as workers write them: segment rows a second, and milliseconds beyond one fsync."""
    from tussis.worker.bench.store import measure

    _measure(json_file, lambda: measure(rounds=rounds or (3 if quick else 5), quick=quick, command=_command()))
