"""``tussis models``: write manifests, check models and export them. Its other commands are in modules of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tussis.shared.errors import NotInstalled, OutputUnwritable
from tussis.shared.installation import pip_line
from tussis.shared.text import printable, probability
from tussis.worker.cli.models_active import activate, list_models
from tussis.worker.cli.models_compare import compare
from tussis.worker.cli.models_quantize import quantize
from tussis.worker.cli.models_shadow import shadow, status
from tussis.worker.cli.models_verify import verify

if TYPE_CHECKING:
    from tussis.worker.detector.manifest import Manifest


@click.group()
def models() -> None:
    """Describe, check, export, verify, quantise, compare and activate models.

    A model is an ONNX file and a manifest beside it, for example cough.onnx and cough.json. The manifest identifies the
    file (name, version, sha256) and has the preprocessing profile and the threshold. A worker does not start without
    it. docs/models.md describes both files.
    """


@models.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name of the model: letters, digits, dots, dashes, underscores.")
@click.option("--version", required=True, help="Version of the model, for example 3 or 1.2.0.")
@click.option("--profile", required=True, help="Preprocessing profile of the training: documented, training or legacy.")
@click.option(
    "--threshold", required=True, type=float, help="The decision is cough if the bag probability is above it."
)
@click.option(
    "--coverage",
    type=click.Choice(["head", "full"]),
    default="full",
    show_default=True,
    help="Coverage of a job that names none: head is the first 17.5 s, full is the whole recording.",
)
@click.option("--provenance", default="", help="Origin of the weights, as free text.")
@click.option("--force", is_flag=True, help="Replace an existing manifest.")
def init(
    model: Path,
    name: str,
    version: str,
    profile: str,
    threshold: float,
    coverage: str,
    provenance: str,
    force: bool,
) -> None:
    """Write the manifest beside the ONNX file MODEL.

    Use it for a model of your own, before a worker serves it. The file is checked against the contract first. The
    profile must be the one of the training: with another profile the model gives wrong results without any error.

    \b
    Example:
      tussis models init cough.onnx --name cough --version 3 --profile documented --threshold 0.61
    """
    from tussis.worker.detector.manifest import Manifest, manifest_path, read_model, sha256_of, write_manifest
    from tussis.worker.detector.session import open_session

    path = manifest_path(model)
    data = read_model(model)
    manifest = Manifest(name, version, sha256_of(data), profile, threshold, provenance, coverage=coverage)
    _check_replaceable(path, force)
    open_session(data, str(model), intra_op_threads=1)
    write_manifest(model, manifest)
    click.echo(printable(f"wrote {path}"))
    _show(manifest)


@models.command()
@click.argument("model")
def check(model: str) -> None:
    """Check whether a worker can serve MODEL, a path or an s3:// URI.

    Use it before a deployment. It checks the file against the manifest and the contract, and runs the model on noise.
    The logits of a recording must be the same within 1e-4 alone, in a batch with other recordings, and with masked
    padding.
    """
    from tussis.shared.settings import load_settings

    settings = load_settings()
    from tussis.shared.s3 import models_s3
    from tussis.worker.detector.detector import Detector
    from tussis.worker.detector.probe import TOLERANCE, probe
    from tussis.worker.detector.source import resolve_model

    path = resolve_model(model, settings.model_cache_dir, lambda: models_s3(settings))
    detector = Detector.load(path, intra_op_threads=1)
    _show(detector.manifest)
    graph = detector.graph
    _line("file", f"{path}, {path.stat().st_size / 1e6:.1f} MB")
    segments = "dynamic" if graph.fixed_segments is None else f"fixed at {graph.fixed_segments}"
    _line(
        "graph", f"opset {graph.opset}, batch {'fixed at 1' if graph.fixed_batch else 'dynamic'}, segments {segments}"
    )
    own = [name for name, there in (("bag", graph.has_bag_logit), ("segment", graph.has_segment_logits)) if there]
    _line("logits", f"from the graph for {' and '.join(own)}" if own else "computed from the probabilities")
    found = probe(detector)
    _line(
        "on noise",
        f"bag probability {probability(found.bag_probability)}, {found.segment_ms:.1f} ms per segment on one thread",
    )
    _line("neighbours", f"change the logits by at most {found.neighbour_shift:.1e} (limit {TOLERANCE:g})")
    _line("padding", f"changes the logits by at most {found.padding_shift:.1e} (limit {TOLERANCE:g})")
    click.echo("The model can be served.")


@models.command()
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT.onnx")
@click.option(
    "--random", "seed", type=click.IntRange(0, 2**32 - 1), metavar="SEED", help="Use random weights of this seed."
)
@click.option("--checkpoint", type=click.Path(path_type=Path), metavar="FILE.pt", help="Use this PyTorch checkpoint.")
@click.option("--name", help="As for `tussis models init`; only with --checkpoint.")
@click.option("--version", help="As for `tussis models init`; only with --checkpoint.")
@click.option("--profile", help="As for `tussis models init`; only with --checkpoint.")
@click.option("--threshold", type=float, help="As for `tussis models init`; only with --checkpoint.")
@click.option("--provenance", help="As for `tussis models init`; only with --checkpoint.")
@click.option("--force", is_flag=True, help="Replace existing files.")
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

    With --checkpoint it exports the weights of a checkpoint of that architecture: a dict with `model_state_dict`, or
    the state dict itself. Given --name, --version, --profile and --threshold, it also writes the manifest. Otherwise
    write the manifest with `tussis models init`.

    With --random it exports random weights, for tests and demonstrations. They are calibrated so that results differ
    between recordings, but the model detects nothing, and its manifest states that. The same seed gives the same model
    on the same machine.

    \b
    Examples:
      tussis models export random.onnx --random 7
      tussis models export cough.onnx --checkpoint best.pt --name cough --version 3 \\
          --profile training --threshold 0.61
    """
    if (seed is None) == (checkpoint is None):
        raise click.UsageError("Give either --random or --checkpoint.")
    described = _manifest_of_options(name, version, profile, threshold, provenance)
    if checkpoint is None and described is not None:
        raise click.UsageError(
            "The manifest of a random model is fixed: omit --name, --version, --profile, --threshold and --provenance."
        )
    from tussis.worker.detector.manifest import manifest_path, write_manifest

    beside = manifest_path(out)
    _check_replaceable(out, force)
    if seed is not None or described is not None:
        _check_replaceable(beside, force)
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


def _manifest_of_options(
    name: str | None, version: str | None, profile: str | None, threshold: float | None, provenance: str | None
) -> Manifest | None:
    """The manifest that the options describe, with a placeholder for the sha256. None without options."""
    if name is not None and version is not None and profile is not None and threshold is not None:
        from tussis.worker.detector.manifest import Manifest

        return Manifest(name, version, "0" * 64, profile, threshold, provenance or "", coverage="full")
    if any(value is not None for value in (name, version, profile, threshold, provenance)):
        raise click.UsageError("Give --name, --version, --profile and --threshold together, or none of them.")
    return None


def _check_replaceable(path: Path, force: bool) -> None:
    """Raise :class:`OutputUnwritable` if the file exists and ``force`` is false."""
    if path.exists() and not force:
        raise OutputUnwritable(f"{path} exists: move it away, or replace it with --force")


def _show(manifest: Manifest) -> None:
    _line("model", manifest.label)
    _line("sha256", manifest.sha256)
    _line("profile", manifest.profile)
    _line("threshold", str(manifest.threshold))
    _line("coverage", manifest.coverage)
    _line("provenance", manifest.provenance or "not stated")
    if manifest.parent is not None:
        _line("made from", manifest.parent)


def _line(what: str, value: str) -> None:
    click.echo(f"  {what:<11} {printable(value)}")


for _command in (activate, list_models, shadow, status, verify, quantize, compare):
    models.add_command(_command)
