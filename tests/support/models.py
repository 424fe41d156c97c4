"""Models for tests: a tiny one, variants of it that break the contract, and the real architecture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.support.sharing import made_once, session_folder
from tussis.worker.detector.manifest import Manifest, sha256_of, write_manifest

if TYPE_CHECKING:
    from tussis.worker.modelling.architecture import CoughNet

FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL
#: The seed of ``random_resnet``.
RESNET_SEED = 7

Shape = tuple[str | int, ...]
_IMAGES: Shape = ("batch_size", "num_segments", 3, 224, 224)
_MASK: Shape = ("batch_size", "num_segments")
_BAG: Shape = ("batch_size",)
_EACH: Shape = ("batch_size", "num_segments")


@dataclass(frozen=True)
class Value:
    """One input or output of the tiny graph."""

    name: str
    element: int
    shape: Shape


@dataclass(frozen=True)
class Tiny:
    """Options of a tiny model. The defaults follow the contract; a test changes the option that it tests."""

    spectrograms: Value = Value("spectrograms", FLOAT, _IMAGES)
    segment_mask: Value = Value("segment_mask", BOOL, _MASK)
    bag_probability: Value = Value("bag_probability", FLOAT, _BAG)
    segment_probabilities: Value | None = Value("segment_probabilities", FLOAT, _EACH)
    bag_logit: Value | None = Value("bag_logit", FLOAT, _BAG)
    segment_logits: Value | None = Value("segment_logits", FLOAT, _EACH)
    batch: str | int = "batch_size"
    """A number fixes the dimension in every shape that has it."""
    segments: str | int = "num_segments"
    opset: int = 17
    ignores_mask: bool = False
    """Masked segments take part in the pooling."""
    looks_at_neighbours: bool = False
    """The mean of the batch is subtracted from the features of every recording."""
    logit_factor: float = 1.0
    """A factor on the output logits. The probabilities are the sigmoids of the logits without it."""
    remark: str = ""
    """Text in the file that changes nothing but its checksum."""


PLAIN = Tiny()


def tiny_bytes(tiny: Tiny = PLAIN) -> bytes:
    """Return an ONNX model whose logits depend on the content of the images.

    The image of a segment is averaged over four bands of rows and four spans of columns. The features of the segment
    are four mixtures of these eight numbers: loudness, tilt, decay and hump. Attention pools the features over the
    segments that the mask keeps. The weights are chosen by hand: of 100 training recordings of the test pack, 65 are
    above 0.61, and 68 % of the segments.
    """
    # Rows 23 to 200 of the image have the content, low frequencies first. Columns are time.
    pooling = np.zeros((448, 8), dtype=np.float32)
    for band, (first, last) in enumerate(((23, 68), (68, 112), (112, 156), (156, 201))):
        pooling[first:last, band] = 1 / (last - first)
        # The mean of a column covers all 224 rows. The rows of the margins are constant.
        pooling[224 + 56 * band : 224 + 56 * (band + 1), 4 + band] = 1 / 56
    mixtures = np.array(
        [  # loudness, tilt, decay, hump
            [0.25, 3, 0, -2],
            [0.25, 0, 0, 2],
            [0.25, 0, 0, 2],
            [0.25, -3, 0, -2],
            [0, 0, 1, 0],
            [0, 0, 0, 0],
            [0, 0, 0, 0],
            [0, 0, -1, 0],
        ],
        dtype=np.float32,
    )
    constants: dict[str, NDArray[Any]] = {
        "first": np.array([0]),
        "second": np.array([1]),
        "channel_axis": np.array([2]),
        "features_weight": pooling @ mixtures,
        "features_bias": np.array([-0.96, -0.6, -0.6, 0.0], dtype=np.float32),
        "score_weight": np.array([[1.0], [0.5], [0.0], [0.0]], dtype=np.float32),
        "bag_weight": np.array([[-1.5], [2.5], [1.0], [-1.0]], dtype=np.float32),
        "segment_weight": np.array([[1.5], [2.0], [-1.0], [1.5]], dtype=np.float32),
        "bias": np.array(0.45, dtype=np.float32),
        "minus": np.array(-1e30, dtype=np.float32),
        "last": np.array([-1]),
        "segment_axis": np.array([1]),
        "factor": np.array(tiny.logit_factor, dtype=np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Slice", [tiny.spectrograms.name, "first", "second", "channel_axis"], ["image"]),
        node("ReduceMean", ["image"], ["rows"], axes=[2, 4], keepdims=0),
        node("ReduceMean", ["image"], ["columns"], axes=[2, 3], keepdims=0),
        node("Concat", ["rows", "columns"], ["profile"], axis=2),
        node("MatMul", ["profile", "features_weight"], ["mixed"]),
        node("Add", ["mixed", "features_bias"], ["shifted"]),
        node("Tanh", ["shifted"], ["own"]),
    ]
    if tiny.looks_at_neighbours:
        nodes += [node("ReduceMean", ["own"], ["crowd"], axes=[0]), node("Sub", ["own", "crowd"], ["features"])]
    else:
        nodes += [node("Identity", ["own"], ["features"])]
    nodes += [
        node("MatMul", ["features", "score_weight"], ["score_column"]),
        node("Squeeze", ["score_column", "last"], ["all_scores"]),
        node("Where", [tiny.segment_mask.name, "all_scores", "minus"], ["kept_scores"]),
        node("Softmax", ["all_scores" if tiny.ignores_mask else "kept_scores"], ["weights"], axis=1),
        node("Unsqueeze", ["weights", "last"], ["weight_column"]),
        node("Mul", ["weight_column", "features"], ["weighted"]),
        node("ReduceSum", ["weighted", "segment_axis"], ["pooled"], keepdims=0),
    ]
    for source, weight, probability, logits in (
        ("pooled", "bag_weight", tiny.bag_probability, tiny.bag_logit),
        ("features", "segment_weight", tiny.segment_probabilities, tiny.segment_logits),
    ):
        nodes += [
            node("MatMul", [source, weight], [f"{source}_column"]),
            node("Squeeze", [f"{source}_column", "last"], [f"{source}_flat"]),
            node("Add", [f"{source}_flat", "bias"], [f"{source}_logit"]),
        ]
        if probability is not None:
            nodes += _output(f"{source}_logit", "Sigmoid", probability)
        if logits is not None:
            nodes += [node("Mul", [f"{source}_logit", "factor"], [f"{source}_scaled"])]
            nodes += _output(f"{source}_scaled", "Identity", logits)
    outputs = (tiny.bag_probability, tiny.segment_probabilities, tiny.bag_logit, tiny.segment_logits)
    graph = helper.make_graph(
        nodes,
        "tiny",
        [_info(tiny.spectrograms, tiny), _info(tiny.segment_mask, tiny)],
        [_info(value, tiny) for value in outputs if value is not None],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", tiny.opset)], ir_version=8)
    if tiny.remark:
        model.doc_string = tiny.remark
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _output(source: str, operator: str, value: Value) -> list[onnx.NodeProto]:
    nodes = [helper.make_node(operator, [source], [value.name if value.element == FLOAT else f"{value.name}_float"])]
    if value.element != FLOAT:
        nodes.append(helper.make_node("Cast", [f"{value.name}_float"], [value.name], to=value.element))
    return nodes


def _info(value: Value, tiny: Tiny) -> onnx.ValueInfoProto:
    sizes = {"batch_size": tiny.batch, "num_segments": tiny.segments}
    shape = [sizes.get(size, size) if isinstance(size, str) else size for size in value.shape]
    return helper.make_tensor_value_info(value.name, value.element, shape)


def write_tiny(folder: Path, tiny: Tiny = PLAIN, *, name: str = "tiny", version: str = "1") -> Path:
    """Write a tiny model and its manifest, as ``tiny.onnx`` and ``tiny.json`` for the name ``tiny``."""
    path = folder / f"{name}.onnx"
    data = tiny_bytes(tiny)
    path.write_bytes(data)
    manifest = Manifest(name, version, sha256_of(data), "documented", 0.61, "made for tests: detects nothing")
    write_manifest(path, manifest)
    return path


def images(batch: int, segments: int, seed: int = 0) -> NDArray[np.float32]:
    """Return seeded noise of different brightness: float32 (batch, segments, 3, 224, 224), three equal channels."""
    generator = np.random.default_rng(seed)
    level = generator.uniform(-1.5, 2, size=(batch, segments, 1, 1, 1))
    plain = level + generator.normal(scale=0.5, size=(batch, segments, 1, 224, 224))
    return np.repeat(plain.astype(np.float32), 3, axis=2)


def kept(*rows: Sequence[int]) -> NDArray[np.bool_]:
    """Return a mask from rows of ones and zeros."""
    return np.array(rows, dtype=np.bool_)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that follows the contract, with its manifest. Its name is ``tiny``, its version ``1``."""
    return write_tiny(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second tiny model. Its name is ``other``, its version ``2``."""
    folder = tmp_path_factory.mktemp("other-model")
    return write_tiny(folder, Tiny(remark="another file"), name="other", version="2")


@pytest.fixture(scope="session")
def random_resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's architecture with calibrated random weights, exported once per session (about 10 s)."""
    from tussis.worker.modelling.export import export_random

    path = session_folder(tmp_path_factory, "random-resnet") / "random.onnx"
    return made_once(path, lambda path: export_random(path, RESNET_SEED))


@pytest.fixture(scope="session")
def int8_resnet(random_resnet: Path) -> Path:
    """``random_resnet`` in int8, calibrated on synthetic sounds, not validated; once per session (about 5 s)."""
    from tussis.worker.modelling.quantization.unproven import int8_for_measuring

    path = random_resnet.with_name("random-int8.onnx")
    return made_once(path, lambda path: int8_for_measuring(random_resnet, path))


@pytest.fixture(scope="session")
def resnet_network(tmp_path_factory: pytest.TempPathFactory) -> CoughNet:
    """The network of ``random_resnet``, calibrated a second time (about 5 s). Tests must not change it."""
    import torch

    from tussis.worker.modelling.architecture import CoughNet
    from tussis.worker.modelling.calibrate import random_network

    path = session_folder(tmp_path_factory, "resnet-network") / "network.pt"
    made_once(path, lambda path: torch.save(random_network(RESNET_SEED).state_dict(), path))
    network = CoughNet()
    network.load_state_dict(torch.load(path))
    return network.eval()
