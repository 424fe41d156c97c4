"""``tussis models verify``: whether an ONNX file computes what its PyTorch checkpoint computes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tussis.shared.errors import NotInstalled
from tussis.shared.installation import pip_line
from tussis.shared.text import printable
from tussis.worker.cli.models_recordings import Recordings

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

    from tussis.worker.modelling.verify import Verification
    from tussis.worker.pipeline.analysis import Analyzer


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path), metavar="CHECKPOINT.pth")
@click.argument("model", metavar="MODEL.onnx")
@click.argument("sources", nargs=-1, required=True, metavar="AUDIO...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def verify(ctx: click.Context, checkpoint: Path, model: str, sources: tuple[str, ...], as_json: bool) -> None:
    """Verify that MODEL.onnx computes what CHECKPOINT.pth computes in PyTorch.

    Both get the same tensors: the first 32 segments of each recording under the profile in the manifest. AUDIO is
    files, folders and s3:// prefixes. Every output must agree within 1e-4. Otherwise the layers are compared one by
    one, and the first layer that differs is named.

    The checkpoint must be of the ResNet-18 architecture, as for `tussis models export`. Only weights are read from it:
    a checkpoint that would run code is refused. A quantised model is refused too: compare it with its parent by
    `tussis models compare`.

    The exit status is 1 if an output differs.

    \b
    Example:
      tussis models verify best.pth cough.onnx recordings/
    """
    from tussis.shared.s3 import models_s3, s3_client
    from tussis.shared.settings import load_settings

    settings = load_settings()
    try:
        from tussis.worker.modelling.export import load_checkpoint
        from tussis.worker.modelling.verify import verify as run
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        raise NotInstalled(f"the verification needs {missing}: {pip_line('models')}") from None
    import torch

    from tussis.worker.detector.detector import Detector
    from tussis.worker.detector.manifest import read_model
    from tussis.worker.detector.source import resolve_model
    from tussis.worker.pipeline.analysis import Analyzer

    torch.set_num_threads(1)  # the preprocessing of one recording is too short for several threads
    network = load_checkpoint(checkpoint)
    path = resolve_model(model, settings.model_cache_dir, lambda: models_s3(settings))
    analyzer = Analyzer.of(Detector.load(path, intra_op_threads=1), None, None, settings, lambda: s3_client(settings))
    recordings = Recordings(sources, analyzer)
    found = run(network, read_model(path), model, _inputs(recordings, analyzer), threads=settings.concurrency)
    if as_json:
        click.echo(json.dumps(_document(found, checkpoint, model, analyzer, recordings)))
    else:
        click.echo(
            printable(
                f"{checkpoint} and {model}: {found.recordings:,} recordings, {found.segments:,} segments, profile"
                f" {analyzer.profile.name}"
            )
        )
        _show(found)
    ctx.exit(0 if found.agrees else 1)


def _inputs(recordings: Recordings, analyzer: Analyzer) -> Iterator[tuple[str, NDArray[float32]]]:
    """Name and ``spectrograms`` of each recording that can be read."""
    from tussis.shared.errors import PermanentError
    from tussis.worker.pipeline.prepare import prepare

    for source, data in recordings.read("verifying"):
        try:
            yield source, prepare(data, analyzer.profile, analyzer.limits).spectrograms
        except PermanentError as error:
            recordings.leave_out(source, error.error_class, str(error))


def _document(
    found: Verification, checkpoint: Path, model: str, analyzer: Analyzer, recordings: Recordings
) -> dict[str, Any]:
    from tussis.shared.store.records import finite

    def numbers(gap: Any) -> dict[str, Any]:
        """The fields of a difference. JSON has no NaN and no infinity."""
        return {name: finite(value) if isinstance(value, float) else value for name, value in asdict(gap).items()}

    return {
        "checkpoint": str(checkpoint),
        "model": model,
        "name": analyzer.detector.manifest.label,
        "profile": analyzer.profile.name,
        "agrees": found.agrees,
        **asdict(found),
        "outputs": [numbers(output) for output in found.outputs],
        "layers": [{**numbers(layer), "differs": layer.differs} for layer in found.layers],
        "first": None if found.first is None else found.first.name,
        "left_out": recordings.left_out,
    }


def _show(found: Verification) -> None:
    from tussis.worker.modelling.export import RELATIVE_TOLERANCE, TOLERANCE

    for output in found.outputs:
        agrees = "agrees" if output.agrees else "differs"
        click.echo(f"  {output.name:<21} {agrees}, largest difference {output.largest:.1e}")
    within = f"within {TOLERANCE:g} (and {RELATIVE_TOLERANCE:g} of the value)"
    if found.agrees:
        click.echo(f"All outputs agree {within}.")
        return
    click.echo(
        printable(f"{found.differing:,} of {found.recordings:,} recordings do not agree {within}, most {found.worst}.")
    )
    if found.unmatched:
        click.echo(f"Only the outputs are compared: {found.unmatched}.")
    else:
        _show_layers(found)
    if found.training_norms:
        click.echo(
            f"{found.training_norms} batch norms of the graph are in training mode, which uses the statistics of the"
            " batch: call eval() before the export."
        )


def _show_layers(found: Verification) -> None:
    click.echo("Layers: the largest difference as a share of the largest value, and of the layer for the same input.")
    width = max(len(layer.name) for layer in found.layers)
    click.echo(f"  {'layer':<{width}}  {'input':>8}  {'output':>8}  {'by itself':>9}")
    for layer in found.layers:
        mark = "  differs" if layer.differs else ""
        click.echo(f"  {layer.name:<{width}}  {layer.input:>8.1e}  {layer.output:>8.1e}  {layer.own:>9.1e}{mark}")
    first, several = found.first, [layer for layer in found.layers if layer.differs]
    if first is None:
        click.echo("No layer differs: the graph computes the outputs from its layers in another way.")
    elif first.differs and not first.input_differs:
        others = f" By themselves {len(several):,} of {len(found.layers):,} layers differ." if several[1:] else ""
        click.echo(f"First layer that differs: {first.name}.{others}")
    else:
        click.echo(f"The first difference is between the layers, in the input of {first.name}.")
