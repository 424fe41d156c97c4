"""``tussis models quantize``: a smaller and faster version of a model, when it answers alike."""

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
@click.option("--calibrate", type=click.Path(path_type=Path), metavar="DIR", help="Recordings to measure ranges over.")
@click.option(
    "--validate",
    type=click.Path(path_type=Path),
    metavar="DIR",
    required=True,
    help="Recordings to compare answers on.",
)
@click.option("--to", type=click.Choice(_TARGETS), default="int8", show_default=True, help="int8: CPUs; float16: GPUs.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE.onnx", help="[MODEL-int8.onnx beside MODEL]")
@click.option("--profile", help="The preprocessing to compare under [the model's manifest].")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Which recordings calibrate.")
@click.option(
    "--max-calibration", type=click.IntRange(min=20), default=300, show_default=True, help="How many, at most."
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
    """Make a smaller and faster version of the float32 model MODEL.

    It is written, with a manifest that names MODEL as its parent, only when it answers like MODEL on the recordings of
    --validate (at least 200; any format, at any depth): at most 0.5 % of the decisions flip, and the bag probability of
    99 % of the recordings moves by at most 0.02. Otherwise the exit status is 1 and nothing is written. When int8 is
    too coarse for all convolutions, the most sensitive ones stay in float32.

    \b
    Examples:
      tussis models quantize cough.onnx --calibrate recordings/train --validate recordings/val
      tussis models quantize cough.onnx --to float16 --validate recordings/val
    """
    if to == "int8" and calibrate is None:
        raise click.UsageError("Missing option '--calibrate': int8 needs recordings to measure ranges over.")
    from tussis.shared.settings import load_settings

    settings = load_settings()
    try:
        from tussis.worker.modelling.quantization.quantize import Order, Target
        from tussis.worker.modelling.quantization.quantize import quantize as run
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        raise NotInstalled(f"quantising needs {missing}: {pip_line('cpu')}") from None
    import torch

    from tussis.shared.dsp.profiles import profile_named
    from tussis.worker.detector.manifest import manifest_path, read_manifest
    from tussis.worker.modelling.quantization.recordings import Reading, files_in, shuffled
    from tussis.worker.pipeline.prepare import limits_of

    # One recording's signal path is too short to be shared: on a busy machine torch's threads spun 20 times its time.
    torch.set_num_threads(1)
    manifest = read_manifest(model)
    watch = _Terminal()
    order = Order(
        model=model,
        output=output or model.with_name(f"{model.stem}-{to}.onnx"),
        target=Target(to),
        calibration=() if calibrate is None else shuffled(files_in(calibrate), seed)[:max_calibration],
        validation=files_in(validate),
        reading=Reading(profile_named(profile or manifest.profile), limits_of(settings), watch.skipped),
        threads=settings.concurrency,
        seed=seed,
    )
    done = run(order, watch)
    click.echo(printable(f"wrote {order.output} and {manifest_path(order.output)}"))
    found = done.comparison
    _line("model", f"{done.manifest.label}, made from {done.manifest.parent}")
    _line("gate", f"passed: {found.told()}")
    _line(
        "sure of", f"fewer than {100 * found.flips_limit:.2f} % flips with 95 % confidence; {found.coughs} are coughs"
    )
    _line("bag", f"probability shift p99 {found.bag_p99:.4f}, largest {found.bag_max:.4f}")
    _line("segments", f"probability shift p99 {found.segment_p99:.4f}, largest {found.segment_max:.4f}")
    _line("independent", f"padding and neighbours move logits by {done.probe.padding_shift:.1e} at most")
    _line("in float32", ", ".join(done.excluded) or "no convolution")
    before, after = done.size_bytes
    _line("size", f"{before / 1e6:.2f} MB to {after / 1e6:.2f} MB")
    before_ms, after_ms = done.segment_ms
    _line("CPU time", f"{before_ms:.2f} ms to {after_ms:.2f} ms a segment on one thread, here")
    if order.target is Target.FLOAT16:
        click.echo("float16 is for GPUs: a CPU computes it in float32 and gains nothing.")


class _Terminal:
    """Progress and news on standard error."""

    def say(self, line: str) -> None:
        click.echo(printable(line), err=True)

    def skipped(self, path: Path, reason: str) -> None:
        self.say(f"left out: {path}: {reason}")

    def track(self, doing: str, paths: Sequence[Path]) -> Iterator[Path]:
        label = f"{doing} ({len(paths)} files)"
        with click.progressbar(length=len(paths), label=label, file=sys.stderr) as bar:
            for path in paths:
                yield path
                bar.update(1)


def _line(what: str, value: str) -> None:
    click.echo(f"  {what:<11} {printable(value)}")
