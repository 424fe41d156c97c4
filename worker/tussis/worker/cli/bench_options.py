"""The options of the benchmarks, and how a benchmark is run: ``tussis bench``, and ``python -m benchmarks``."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tussis.shared.text import printable

if TYPE_CHECKING:
    from tussis.worker.bench.measurements import Measurements

F = TypeVar("F", bound=Callable[..., Any])

rounds_option = click.option("--rounds", type=click.IntRange(1, 100), help="The number of repetitions.")
only_option = click.option(
    "--only",
    multiple=True,
    type=click.Choice(["2s", "10s", "60s", "mix"]),
    help="The recordings to measure; can be repeated [all].",
)
recordings_option = click.option(
    "--recordings",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Real recordings for the mix [TUSSIS_TEST_DATA; without it, a synthetic mix].",
)
original_option = click.option(
    "--original",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="MODEL",
    help="The float32 model [a ResNet-18 with random weights, exported once].",
)
model_option = click.option(
    "--model",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The model of the worker [the original].",
)
concurrency_option = click.option(
    "--concurrency", type=click.IntRange(1, 256), help="Processes of each program [one per core]."
)


def common_options(function: F) -> F:
    """The options that every benchmark has."""
    json_file = click.option(
        "--json",
        "json_file",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Write the table to this file too, as JSON.",
    )
    quick = click.option("--quick", is_flag=True, help="Measure less: it takes seconds, and the numbers are imprecise.")
    return quick(json_file(function))


def command_line() -> str:
    """The command line of this process."""
    program = click.get_current_context().find_root().info_name or Path(sys.argv[0]).name
    return printable(f"{program} {shlex.join(sys.argv[1:])}")


def recordings_folder(given: Path | None) -> Path | None:
    """The folder given, else that of the tests, else None."""
    named = os.environ.get("TUSSIS_TEST_DATA")
    return given or (Path(named) if named else None)


def original_of(given: Path | None) -> Path:
    """The model given, else a ResNet-18 with random weights, exported when the file does not exist."""
    from tussis.shared.settings import load_settings

    if given is not None:
        return given.absolute()
    cache = load_settings().model_cache_dir
    from tussis.worker.bench.floor import original_model

    return original_model(cache.absolute())


def say(line: str) -> None:
    """Show progress, on standard error."""
    click.echo(line, err=True)


def run_benchmark(json_file: Path | None, measure: Callable[[], Measurements]) -> None:
    """Measure, and show the measurements. An interrupt stops every process that was started."""
    from tussis.shared.errors import OutputUnwritable
    from tussis.worker.bench.measurements import show, write_json
    from tussis.worker.local.interrupts import Interrupted, interrupts

    with interrupts() as handled:
        try:
            found = measure()
        except Interrupted as interrupted:
            click.echo(f"tussis: stopped by {interrupted.cause}; no report", err=True)
            click.get_current_context().exit(interrupted.status)
        handled.disarm()
    show(found, click.echo)
    if json_file is not None:
        try:
            write_json(found, json_file)
        except OSError as error:
            raise OutputUnwritable(f"cannot write {json_file}: {error.strerror}") from error
