"""The contract of the ONNX file: names, types and shapes. ``docs/models.md`` documents it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from tussis.shared.dsp.constants import IMAGE_SIZE, MAX_SEGMENTS
from tussis.shared.errors import ModelRefused

SPECTROGRAMS: Final = "spectrograms"
SEGMENT_MASK: Final = "segment_mask"
BAG_PROBABILITY: Final = "bag_probability"
SEGMENT_PROBABILITIES: Final = "segment_probabilities"
SEGMENT_LOGITS: Final = "segment_logits"
BAG_LOGIT: Final = "bag_logit"

#: The oldest opset that the audio contract allows.
MIN_OPSET: Final = 17

_BATCH: Final = "batch_size"
_SEGMENTS: Final = "num_segments"
_FLOAT: Final = "tensor(float)"
_INPUTS: Final[Mapping[str, tuple[str, tuple[str | int, ...]]]] = {
    SPECTROGRAMS: (_FLOAT, (_BATCH, _SEGMENTS, 3, IMAGE_SIZE, IMAGE_SIZE)),
    SEGMENT_MASK: ("tensor(bool)", (_BATCH, _SEGMENTS)),
}
_OUTPUTS: Final[Mapping[str, tuple[str, tuple[str | int, ...]]]] = {
    BAG_PROBABILITY: (_FLOAT, (_BATCH,)),
    SEGMENT_PROBABILITIES: (_FLOAT, (_BATCH, _SEGMENTS)),
    BAG_LOGIT: (_FLOAT, (_BATCH,)),
    SEGMENT_LOGITS: (_FLOAT, (_BATCH, _SEGMENTS)),
}
_OPTIONAL: Final = frozenset({BAG_LOGIT, SEGMENT_LOGITS})


class Port(Protocol):
    """An input or output as onnxruntime describes it (its ``NodeArg``)."""

    @property
    def name(self) -> str: ...

    @property
    def type(self) -> str:
        """``tensor(float)`` for float32."""
        ...

    @property
    def shape(self) -> Sequence[int | str | None]:
        """An int is a fixed dimension. A name or None is a dynamic one."""
        ...


@dataclass(frozen=True, slots=True)
class Graph:
    """The properties of a graph that the contract does not fix."""

    opset: int
    fixed_batch: bool
    """Whether the graph takes exactly one recording per run."""
    fixed_segments: int | None
    """The exact number of segments that the graph takes. None: any number."""
    outputs: tuple[str, ...]
    """The contract's outputs that the graph has."""

    @property
    def has_bag_logit(self) -> bool:
        return BAG_LOGIT in self.outputs

    @property
    def has_segment_logits(self) -> bool:
        return SEGMENT_LOGITS in self.outputs


def check_contract(inputs: Sequence[Port], outputs: Sequence[Port], opset: int, where: str) -> Graph:
    """Check a graph's inputs and outputs against the contract.

    Outputs that the contract does not name are ignored. ``where`` names the file in errors.

    Raises :class:`ModelRefused` for the first difference. The message has the file, the port, what was found and what
    the contract requires.
    """
    if opset < MIN_OPSET:
        raise ModelRefused(f"{where}: opset {opset}: export the model with opset {MIN_OPSET} or newer")
    found_inputs = {port.name: port for port in inputs}
    found_outputs = {port.name: port for port in outputs}
    for name in sorted(found_inputs.keys() - _INPUTS.keys()):
        raise ModelRefused(f'{where}: unknown input "{name}": the contract has only {_names(_INPUTS)}')
    dimensions: dict[str, int | None] = {}
    for kind, wanted, found in (("input", _INPUTS, found_inputs), ("output", _OUTPUTS, found_outputs)):
        for name, (element, shape) in wanted.items():
            if name in found:
                _check_port(kind, found[name], element, shape, dimensions, where)
            elif name not in _OPTIONAL:
                there = ", ".join(f'"{other}"' for other in found) or "none"
                raise ModelRefused(f'{where}: no {kind} "{name}" (found: {there}): use this name in the export')
    batch, segments = dimensions[_BATCH], dimensions[_SEGMENTS]
    if batch not in (None, 1):
        raise ModelRefused(
            f"{where}: the batch size is fixed at {batch}: export the model with a dynamic batch size, or 1"
        )
    if segments is not None and segments < MAX_SEGMENTS:
        raise ModelRefused(
            f"{where}: the number of segments is fixed at {segments}, and recordings have up to {MAX_SEGMENTS}:"
            " export the model with a dynamic number of segments"
        )
    return Graph(opset, batch == 1, segments, tuple(name for name in _OUTPUTS if name in found_outputs))


def _check_port(
    kind: str,
    port: Port,
    element: str,
    shape: tuple[str | int, ...],
    dimensions: dict[str, int | None],
    where: str,
) -> None:
    """Check one input or output. ``dimensions`` collects the sizes of batch and segments that the inputs declare."""
    what = f'{where}: {kind} "{port.name}"'
    if port.type != element:
        raise ModelRefused(f"{what} is {port.type}: the contract requires {element}")
    found = tuple(size if isinstance(size, int) else None for size in port.shape)
    wanted = f"({', '.join(map(str, shape))})"
    if len(found) != len(shape):
        raise ModelRefused(f"{what} has {len(found)} dimensions: the contract requires {wanted}")
    for size, expected in zip(found, shape, strict=True):
        if isinstance(expected, int):
            # With a dynamic height or width, a wrong size would fail only in the first run.
            if size != expected:
                raise ModelRefused(f"{what} has shape {_shape(found)}: the contract requires {wanted}")
        elif kind == "input" and dimensions.setdefault(expected, size) != size:
            raise ModelRefused(f"{what} has shape {_shape(found)}: {expected} differs from the other input's")
        elif size is not None and dimensions[expected] != size:
            raise ModelRefused(
                f"{what} has shape {_shape(found)}: {expected} is fixed in this output, but not in the inputs"
            )


def _names(ports: Mapping[str, object]) -> str:
    return " and ".join(f'"{name}"' for name in ports)


def _shape(sizes: Sequence[int | None]) -> str:
    return f"({', '.join('dynamic' if size is None else str(size) for size in sizes)})"
