"""``tussis models quantize``: make a smaller and faster version of a model that gives the same results."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from tussis.shared.errors import NotInstalled
from tussis.shared.installation import pip_line
from tussis.shared.text import printable

_TARGETS = ("int8", "float16")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of recordings that calibrate the ranges of int8.",
)
@click.option(
    "--validate",
    type=click.Path(path_type=Path),
    metavar="DIR",
    required=True,
    help="Folder of recordings for the comparison with MODEL.",
)
@click.option(
    "--to",
    type=click.Choice(_TARGETS),
    default="int8",
    show_default=True,
    help="Number type: int8 for CPUs, float16 for GPUs.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE.onnx",
    help="File to write.  [default: MODEL-int8.onnx or MODEL-float16.onnx, beside MODEL]",
)
@click.option("--profile", help="Preprocessing profile of the comparison.  [default: the profile in the manifest]")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of the random selection of recordings for the calibration.",
)
@click.option(
    "--max-calibration",
    type=click.IntRange(min=20),
    default=300,
    show_default=True,
    help="At most this number of recordings for the calibration.",
)
def quantize(
    model: Path,
    calibrate: Path | None,
    validate: Path,
    to: str,
    output: Path | None,
    profile: str | None,
    seed: int,
    max_calibration: int,
) -> None:
    """Quantise the float32 model MODEL, to make it smaller and faster.

    The new model and a manifest that names MODEL as its parent are written only if the results are close to those of
    MODEL on the recordings in --validate: at most 0.5 % of the decisions flip, and the bag probability of 99 % of the
    recordings changes by at most 0.02. Otherwise nothing is written and the exit status is 1. If int8 for all
    convolutions fails this comparison, the most sensitive convolutions stay in float32.

    --validate needs at least 200 recordings. All formats are accepted, and subfolders are searched too.

    \b
    Examples:
      tussis models quantize cough.onnx --calibrate recordings/train --validate recordings/val
      tussis models quantize cough.onnx --to float16 --validate recordings/val
    """
    if to == "int8" and calibrate is None:
        raise click.UsageError(
            "Missing option '--calibrate': int8 needs a folder of recordings that calibrate the ranges."
        )
    from tussis.shared.settings import load_settings

    settings = load_settings()
    try:
        from tussis.worker.modelling.quantization.quantize import QuantizationRequest, Target
        from tussis.worker.modelling.quantization.quantize import quantize as run
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        raise NotInstalled(f"quantising needs {missing}: {pip_line('cpu')}") from None
    import torch

    from tussis.shared.dsp.profiles import profile_named
    from tussis.shared.folders import files_in
    from tussis.worker.detector.manifest import manifest_path, read_manifest
    from tussis.worker.modelling.quantization.recordings import Reading, shuffled
    from tussis.worker.pipeline.prepare import limits_of

    # The preprocessing of one recording is too short for several threads: on a busy machine they took 20 times as long.
    torch.set_num_threads(1)
    manifest = read_manifest(model)
    progress = _TerminalProgress()
    request = QuantizationRequest(
        model=model,
        output=output or model.with_name(f"{model.stem}-{to}.onnx"),
        target=Target(to),
        calibration=() if calibrate is None else shuffled(files_in(calibrate), seed)[:max_calibration],
        validation=files_in(validate),
        reading=Reading(profile_named(profile or manifest.profile), limits_of(settings), progress.skipped),
        threads=settings.concurrency,
        seed=seed,
    )
    done = run(request, progress)
    click.echo(printable(f"wrote {request.output} and {manifest_path(request.output)}"))
    found = done.comparison
    _line("model", f"{done.manifest.label}, made from {done.manifest.parent}")
    _line("gate", f"passed: {found.summary()}")
    _line(
        "bound",
        f"fewer than {100 * found.flips_limit:.2f} % of all decisions flip, with 95 % confidence; "
        f"{found.coughs} of the recordings are coughs",
    )
    _line("bag", f"probability shift p99 {found.bag_p99:.4f}, largest {found.bag_max:.4f}")
    _line("segments", f"probability shift p99 {found.segment_p99:.4f}, largest {found.segment_max:.4f}")
    shift = max(done.probe.padding_shift, done.probe.neighbour_shift)
    _line("batching", f"padding and other recordings change the logits by at most {shift:.1e}")
    _line("in float32", ", ".join(done.excluded) or "no convolution")
    before, after = done.size_bytes
    _line("size", f"{before / 1e6:.2f} MB to {after / 1e6:.2f} MB")
    before_ms, after_ms = done.segment_ms
    _line("CPU time", f"{before_ms:.2f} ms to {after_ms:.2f} ms per segment on one thread of this machine")
    if request.target is Target.FLOAT16:
        click.echo("float16 is for GPUs: a CPU computes it in float32 and is not faster.")


class _TerminalProgress:
    """Prints the progress on standard error."""

    def report(self, line: str) -> None:
        click.echo(printable(line), err=True)

    def skipped(self, path: Path, reason: str) -> None:
        self.report(f"skipped: {path}: {reason}")

    def track(self, doing: str, paths: Sequence[Path]) -> Iterator[Path]:
        label = f"{doing} ({len(paths)} files)"
        with click.progressbar(length=len(paths), label=label, file=sys.stderr) as bar:
            for path in paths:
                yield path
                bar.update(1)


def _line(what: str, value: str) -> None:
    click.echo(f"  {what:<11} {printable(value)}")
