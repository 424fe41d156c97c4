"""``tussis models``: manifests, checks, exports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tussis.shared.errors import NotInstalled, OutputUnwritable
from tussis.shared.installation import pip_line
from tussis.shared.text import printable, probability
from tussis.worker.cli.models_quantize import quantize

if TYPE_CHECKING:
    from tussis.worker.detector.manifest import Manifest


@click.group()
def models() -> None:
    """Make models ready to be served, and check them.

    A model is an ONNX file and a manifest beside it: cough.onnx and cough.json. The manifest says what the file is
    (name, version, sha256) and how it must be asked (preprocessing profile, threshold). A worker serves nothing
    without one.
    """


@models.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="The model's name: letters, digits, dots, dashes, underscores.")
@click.option("--version", required=True, help="Its version, as you count them.")
@click.option("--profile", required=True, help="The preprocessing it was trained under: documented, training, legacy.")
@click.option("--threshold", required=True, type=float, help="Cough when the bag probability is above it.")
@click.option("--provenance", default="", help="Where the weights come from, in words.")
@click.option("--force", is_flag=True, help="Replace a manifest that exists.")
def init(model: Path, name: str, version: str, profile: str, threshold: float, provenance: str, force: bool) -> None:
    """Write the manifest beside the ONNX file MODEL.

    The file is held against the contract first. Nothing is guessed: a profile other than the one that the model was
    trained under gives wrong answers without any error showing.

    \b
    Example:
      tussis models init cough.onnx --name cough --version 3 --profile documented --threshold 0.61
    """
    from tussis.worker.detector.manifest import Manifest, manifest_path, read_model, sha256_of, write_manifest
    from tussis.worker.detector.session import open_session

    path = manifest_path(model)
    data = read_model(model)
    manifest = Manifest(name, version, sha256_of(data), profile, threshold, provenance)
    _keep(path, force)
    open_session(data, str(model), intra_op_threads=1)
    write_manifest(model, manifest)
    click.echo(printable(f"wrote {path}"))
    _show(manifest)


@models.command()
@click.argument("model")
def check(model: str) -> None:
    """Check MODEL, a path or s3:// URI, as a worker would, and more.

    Holds the file against its manifest and the contract, runs it on noise, and compares a recording's logits alone,
    beside neighbours in a batch, and with masked padding: they must be the same within 1e-4.
    """
    from tussis.shared.settings import load_settings

    settings = load_settings()
    from tussis.shared.s3 import s3_client
    from tussis.worker.detector.detector import Detector
    from tussis.worker.detector.probe import TOLERANCE, probe
    from tussis.worker.detector.source import resolve_model

    path = resolve_model(model, settings.model_cache_dir, lambda: s3_client(settings))
    detector = Detector.load(path, intra_op_threads=1)
    _show(detector.manifest)
    graph = detector.graph
    _line("file", f"{path}, {path.stat().st_size / 1e6:.1f} MB")
    segments = "dynamic" if graph.fixed_segments is None else f"fixed at {graph.fixed_segments}"
    _line(
        "graph", f"opset {graph.opset}, batch {'fixed at 1' if graph.fixed_batch else 'dynamic'}, segments {segments}"
    )
    own = [name for name, there in (("bag", graph.has_bag_logit), ("segment", graph.has_segment_logits)) if there]
    _line("logits", f"the graph's own for {' and '.join(own)}" if own else "computed from the probabilities")
    found = probe(detector)
    _line(
        "on noise",
        f"bag probability {probability(found.bag_probability)}, {found.segment_ms:.1f} ms a segment on one thread",
    )
    _line("neighbours", f"move its logits by at most {found.neighbour_shift:.1e} (limit {TOLERANCE:g})")
    _line("padding", f"moves its logits by at most {found.padding_shift:.1e} (limit {TOLERANCE:g})")
    click.echo("The model can be served.")


@models.command()
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT.onnx")
@click.option(
    "--random", "seed", type=click.IntRange(0, 2**32 - 1), metavar="SEED", help="Random weights of this seed."
)
@click.option("--checkpoint", type=click.Path(path_type=Path), metavar="FILE.pt", help="A PyTorch checkpoint.")
@click.option("--name", help="As of `models init`; with --checkpoint.")
@click.option("--version", help="As of `models init`; with --checkpoint.")
@click.option("--profile", help="As of `models init`; with --checkpoint.")
@click.option("--threshold", type=float, help="As of `models init`; with --checkpoint.")
@click.option("--provenance", help="As of `models init`; with --checkpoint.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
def export(
    out: Path,
    seed: int | None,
    checkpoint: Path | None,
    name: str | None,
    version: str | None,
    profile: str | None,
    threshold: float | None,
    provenance: str | None,
    force: bool,
) -> None:
    """Export the ResNet-18 architecture to OUT.onnx.

    With --checkpoint: from a checkpoint of that architecture (a dict with `model_state_dict`, or the bare state). Given
    name, version, profile and threshold, the manifest is written too; without them, `tussis models init` does it.

    With --random: with random weights, calibrated so that answers differ between recordings. Such a model detects
    nothing. The same seed gives the same model on the same machine, and the manifest says what it is.

    \b
    Examples:
      tussis models export random.onnx --random 7
      tussis models export cough.onnx --checkpoint best.pt --name cough --version 3 \\
          --profile training --threshold 0.61
    """
    if (seed is None) == (checkpoint is None):
        raise click.UsageError("Give one of --random and --checkpoint.")
    described = _described(name, version, profile, threshold, provenance)
    if checkpoint is None and described is not None:
        raise click.UsageError("A random model's manifest is fixed: leave --name and its like to --checkpoint.")
    from tussis.worker.detector.manifest import manifest_path, write_manifest

    beside = manifest_path(out)
    _keep(out, force)
    if seed is not None or described is not None:
        _keep(beside, force)
    try:
        from tussis.worker.modelling.export import export as export_network
        from tussis.worker.modelling.export import export_random, load_checkpoint
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        raise NotInstalled(f"the export needs {missing}: {pip_line('models')}") from None

    if checkpoint is None:
        assert seed is not None
        manifest = export_random(out, seed)
    else:
        sha256 = export_network(load_checkpoint(checkpoint), out)
        if described is None:
            click.echo(printable(f"wrote {out}"))
            _line("sha256", sha256)
            click.echo(printable(f"next: tussis models init {out} --name N --version V --profile P --threshold T"))
            return
        manifest = replace(described, sha256=sha256)
        write_manifest(out, manifest)
    click.echo(printable(f"wrote {out} and {beside}"))
    _show(manifest)


def _described(
    name: str | None, version: str | None, profile: str | None, threshold: float | None, provenance: str | None
) -> Manifest | None:
    """The manifest that the options describe, its sha256 still to come; None when none is given."""
    if name is not None and version is not None and profile is not None and threshold is not None:
        from tussis.worker.detector.manifest import Manifest

        return Manifest(name, version, "0" * 64, profile, threshold, provenance or "")
    if any(value is not None for value in (name, version, profile, threshold, provenance)):
        raise click.UsageError("Give --name, --version, --profile and --threshold together, or none of them.")
    return None


def _keep(path: Path, force: bool) -> None:
    """Raise :class:`OutputUnwritable` when a file would be replaced and nobody asked for it."""
    if path.exists() and not force:
        raise OutputUnwritable(f"{path} exists: move it away, or replace it with --force")


def _show(manifest: Manifest) -> None:
    _line("model", manifest.label)
    _line("sha256", manifest.sha256)
    _line("profile", manifest.profile)
    _line("threshold", str(manifest.threshold))
    _line("provenance", manifest.provenance or "not stated")
    if manifest.parent is not None:
        _line("made from", manifest.parent)


def _line(what: str, value: str) -> None:
    click.echo(f"  {what:<11} {printable(value)}")


models.add_command(quantize)
