"""Export a PyTorch network to the ONNX file that a worker loads.

The export uses ``torch.export`` (opset 18, batch and segments dynamic). The TorchScript exporter is deprecated;
onnxruntime optimises both results to the same graph. The export folds BatchNorm into the convolutions.
"""

from __future__ import annotations

import io
import logging
import pickle
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from tussis.shared.errors import ModelRefused, OutputUnwritable
from tussis.worker.atomic import replace_file
from tussis.worker.detector.contract import SEGMENT_MASK, SPECTROGRAMS
from tussis.worker.detector.manifest import Manifest, sha256_of, write_manifest
from tussis.worker.detector.session import open_session
from tussis.worker.modelling.architecture import CoughNet, NetworkOutputs
from tussis.worker.modelling.calibrate import THRESHOLD, random_network

#: The oldest opset that torch's exporter writes without a downward conversion. The contract's minimum is 17.
OPSET: Final = 18
#: The largest allowed difference between onnxruntime's outputs and torch's: TOLERANCE + RELATIVE_TOLERANCE * |value|.
TOLERANCE: Final = 1e-4
RELATIVE_TOLERANCE: Final = 1e-5

RANDOM_NAME: Final = "random-resnet18"
_RANDOM_PROVENANCE: Final = (
    "Random weights of the ResNet-18 architecture, seed {seed}, heads calibrated on synthetic sounds so that answers"
    " spread around the threshold. Detects nothing: for tests and demonstrations only."
)
_STATE: Final = "model_state_dict"
#: The errors, besides ``UnpicklingError``, that torch raises for truncated files and for other file types.
_BAD_FILE: Final = (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, struct.error)


def export_random(out: Path, seed: int) -> Manifest:
    """Write a random model and its manifest. The same seed and machine give the same bytes.

    Raises:
        ModelRefused: the path does not end in ``.onnx``.
        OutputUnwritable: the files cannot be written.
    """
    manifest = Manifest(
        name=RANDOM_NAME,
        version=str(seed),
        sha256=export(random_network(seed), out),
        profile="documented",
        threshold=THRESHOLD,
        provenance=_RANDOM_PROVENANCE.format(seed=seed),
    )
    write_manifest(out, manifest)
    return manifest


def export(network: CoughNet, out: Path) -> str:
    """Write a network as an ONNX file, atomically, after a comparison of its outputs with torch's.

    Returns:
        The file's sha256.

    Raises:
        ModelRefused: the exported graph breaks the contract or has different outputs. Nothing is written.
        OutputUnwritable: the file cannot be written.
    """
    data = to_onnx(network)
    _verify(network, data, str(out))
    try:
        replace_file(out, data, durable=True)
    except OSError as error:
        raise OutputUnwritable(f"cannot write {out}: {error.strerror}") from None
    return sha256_of(data)


def to_onnx(network: CoughNet) -> bytes:
    """The ONNX file of a network, including its weights."""
    batch, segments = torch.export.Dim("batch_size"), torch.export.Dim("num_segments")
    with _quiet():
        program = torch.onnx.export(
            network.eval(),
            _example(),
            dynamo=True,
            opset_version=OPSET,
            input_names=[SPECTROGRAMS, SEGMENT_MASK],
            output_names=list(NetworkOutputs._fields),
            dynamic_shapes={
                SPECTROGRAMS: {0: batch, 1: segments},
                SEGMENT_MASK: {0: batch, 1: segments},
            },
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise ModelRefused("torch.onnx.export returned no model: install torch 2.11")
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def load_checkpoint(path: Path) -> CoughNet:
    """Load a network from a PyTorch checkpoint: a dict with ``model_state_dict``, or the state itself.

    Only weights are unpickled. A checkpoint that would run code is refused.

    Raises:
        ModelRefused: the file does not exist, is not a checkpoint, or has another architecture.
    """
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelRefused(f"the checkpoint {path} does not exist: give the path of a PyTorch checkpoint") from None
    except OSError as error:
        raise ModelRefused(f"cannot read the checkpoint {path}: {error.strerror}") from None
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelRefused(
            f"{path} is not a PyTorch checkpoint of weights alone: save only tensors and numbers ({reason})"
        ) from None
    except _BAD_FILE as error:
        raise ModelRefused(f"{path} is not a PyTorch checkpoint: {' '.join(str(error).split())[:200]}") from None
    state = document.get(_STATE, document) if isinstance(document, dict) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelRefused(f'{path} has no state dict: it must be a dict of tensors, or a dict with one as "{_STATE}"')
    network = CoughNet()
    _check_state(network, state, path)
    network.load_state_dict(dict(state))
    return network.eval()


def _check_state(network: CoughNet, state: Mapping[str, Tensor], path: Path) -> None:
    wanted = network.state_dict()
    missing = [key for key in wanted if key not in state]
    unknown = [key for key in state if key not in wanted]
    if missing or unknown:
        found = [
            f"{len(keys)} {what} ({keys[0]})" for keys, what in ((missing, "missing"), (unknown, "unknown")) if keys
        ]
        raise ModelRefused(f"{path} is not of this architecture: keys {', '.join(found)}")
    for key, value in state.items():
        if value.shape != wanted[key].shape:
            raise ModelRefused(
                f"{path} is not of this architecture: {key} is {tuple(value.shape)}, not {tuple(wanted[key].shape)}"
            )
        if not torch.isfinite(value).all():
            raise ModelRefused(f"{path} is damaged: {key} contains NaN or infinity")


def _verify(network: CoughNet, data: bytes, where: str) -> None:
    """Compare the ONNX file with torch on shapes that the export did not use, including masked segments."""
    session = open_session(data, where, intra_op_threads=1)
    generator = torch.Generator().manual_seed(0)
    for batch, segments in ((1, 1), (2, 3)):
        spectrograms = torch.randn(batch, segments, 3, 224, 224, generator=generator)
        mask = torch.arange(segments) <= torch.arange(batch)[:, None]
        with torch.inference_mode():
            expected = network(spectrograms, mask)._asdict()
        found = session.run({SPECTROGRAMS: spectrograms.numpy(), SEGMENT_MASK: mask.numpy()})
        for name, values in expected.items():
            reference = values.numpy()
            if not agrees(found[name], reference):
                gap = np.abs(found[name] - reference).max()
                raise ModelRefused(f'{where}: "{name}" differs from torch by {gap:.2g}: nothing was written')


def agrees(found: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    """Whether onnxruntime's output is that of torch within the tolerance. NaN never is."""
    return bool((np.abs(found - expected) <= TOLERANCE + RELATIVE_TOLERANCE * np.abs(expected)).all())


def _example() -> tuple[Tensor, Tensor]:
    # Neither dimension is 1: the exporter would treat a 1 as a constant.
    return torch.zeros(2, 3, 3, 224, 224), torch.ones(2, 3, dtype=torch.bool)


def _strip(model: Any) -> None:
    """Remove data that depends on the machine: every node and value has a stack trace with paths of the source."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's messages about torch's internals. Errors are still logged."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            # torch 2.11 warns about its own tree API, and about axis names that both inputs share.
            warnings.filterwarnings("ignore", category=FutureWarning, message=r".*LeafSpec.*")
            warnings.filterwarnings("ignore", category=UserWarning, message=r"# The axis name")
            yield
    finally:
        logger.setLevel(level)
