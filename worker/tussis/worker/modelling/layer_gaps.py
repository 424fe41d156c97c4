"""Compare the layers of a network in PyTorch with the same layers in an ONNX graph, on the same tensors."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tussis.worker.detector.contract import SEGMENT_MASK, SPECTROGRAMS
from tussis.worker.modelling.architecture import CoughNet
from tussis.worker.modelling.layers import Layer

#: The largest allowed difference of a layer's input, as a share of the input's largest value. The rounding of all
#: convolutions of a ResNet-18 adds up to 4e-6.
INPUT_TOLERANCE: Final = 1e-4
#: The largest allowed difference of a layer's output by itself, as a share of the sum of its absolute products. The
#: rounding of float32 is below 1e-6.
OWN_TOLERANCE: Final = 5e-6

#: The least divisor of a share: a difference from 0 is not divided by 0.
_LEAST: Final = 1e-30


@dataclass(frozen=True, slots=True)
class LayerGap:
    """How one layer of the graph differs from PyTorch. 0: equal values. Infinity: NaN, or another number of values."""

    name: str
    input: float
    """Largest difference of its input, as a share of the input's largest value."""
    output: float
    """The same of its output. It includes the differences of earlier layers."""
    own: float
    """Largest difference of its output from that of PyTorch's layer for the graph's input: its share of the sum of
    absolute products."""

    @property
    def input_differs(self) -> bool:
        """Whether the layer gets other values. If no earlier layer differs, a step before the layer does."""
        return self.input > INPUT_TOLERANCE

    @property
    def differs(self) -> bool:
        """Whether the layer computes something else than in PyTorch."""
        return self.own > OWN_TOLERANCE


def layer_gaps(network: CoughNet, layers: Sequence[Layer], values: Mapping[str, NDArray[Any]]) -> tuple[LayerGap, ...]:
    """The differences of each layer.

    Args:
        network: in eval mode.
        layers: in the network's order.
        values: the inputs of the graph, and the values of the layers' inputs and outputs, by name.
    """
    names = {name for layer in layers for name in layer.modules}
    with torch.inference_mode(), _recorded(network, names) as seen:
        network(torch.from_numpy(values[SPECTROGRAMS]), torch.from_numpy(values[SEGMENT_MASK]))
        return tuple(
            _gap(
                layer,
                [network.get_submodule(name) for name in layer.modules],
                (seen[layer.modules[0]][0], seen[layer.modules[-1]][1]),
                (values[layer.input], values[layer.output]),
            )
            for layer in layers
        )


def _gap(
    layer: Layer,
    modules: Sequence[nn.Module],
    expected: tuple[Tensor, Tensor],
    found: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> LayerGap:
    if any(there.numel() != here.size for there, here in zip(expected, found, strict=True)):
        return LayerGap(layer.name, math.inf, math.inf, math.inf)
    # The graph may have the same values in another shape.
    given, made = (torch.from_numpy(here).reshape(there.shape) for there, here in zip(expected, found, strict=True))
    return LayerGap(
        layer.name, _relative(given, expected[0]), _relative(made, expected[1]), _by_itself(modules, given, made)
    )


def _relative(found: Tensor, expected: Tensor) -> float:
    return _finite((found - expected).abs().max() / expected.abs().max().clamp_min(_LEAST))


def _by_itself(modules: Sequence[nn.Module], given: Tensor, made: Tensor) -> float:
    """The difference from PyTorch's layer, computed in float64 without its rounding."""
    exact, bound = given.double(), given.double().abs()
    for module in modules:
        exact = copy.deepcopy(module).double()(exact)
        bound = _absolute(module)(bound)
    # Where nearly all inputs are 0, the sum says nothing about the rounding.
    bound = bound.clamp_min(max(_LEAST, 1e-3 * float(bound.max())))
    return _finite(((made - exact).abs() / bound).max())


def _absolute(module: nn.Module) -> nn.Module:
    """The layer with absolute weights. For absolute values it computes the sum of the absolute products."""
    copied = copy.deepcopy(module).double()
    for weights in copied.parameters():
        weights.abs_()
    if isinstance(copied, nn.BatchNorm1d | nn.BatchNorm2d) and copied.running_mean is not None:
        copied.running_mean.abs_().neg_()
    return copied


def _finite(value: Tensor) -> float:
    return float(value) if torch.isfinite(value) else math.inf


@contextmanager
def _recorded(network: CoughNet, names: set[str]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Input and output of each of these modules, of the runs inside the block."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def record(name: str) -> Any:
        def hook(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
            # Copies: the next step may change the output in place.
            seen[name] = given[0].clone(), made.clone()

        return hook

    handles = [network.get_submodule(name).register_forward_hook(record(name)) for name in sorted(names)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
