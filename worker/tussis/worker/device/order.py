"""A device process's arguments. Imports nothing heavy: the command line reads it too."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum

from tussis.shared.queues import Device


class Provider(StrEnum):
    """What runs the graph."""

    CUDA = "cuda"
    TENSORRT = "tensorrt"
    CPU = "cpu"
    """For trials and tests: a GPU worker without a GPU."""

    @property
    def device(self) -> Device:
        """The device that computes: results carry it, and the worker takes from its queue."""
        return Device.CPU if self is Provider.CPU else Device.GPU


@dataclass(frozen=True)
class OnDevice:
    """The device of a worker."""

    provider: Provider
    index: int = 0
    """CUDA's number of the device, from 0."""


@dataclass(frozen=True)
class DeviceOrder:
    """Everything that a device process needs. No secrets: it has no connection but its socket."""

    model: str
    """Path of the ONNX file."""
    sha256: str
    """Of the model file whose manifest the worker's children have read."""
    provider: Provider
    device_index: int
    threads: int
    """Of onnxruntime on the CPU."""
    carriers: int
    """Number of the worker's children: no more recordings wait at a time."""
    batch_segments: int
    """The most segments of one run, padding included."""
    batch_wait_ms: float
    """The longest time that a recording waits for others."""
    deadline_s: float
    """Of one run."""
    run_dir: str
    cache_dir: str
    """Where TensorRT keeps its engines."""
    metered: bool
    lifeline: int
    """A file descriptor of a pipe that ends when the parent does."""
    log_format: str
    log_level: str

    def to_json(self) -> str:
        """As one argument of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> DeviceOrder:
        """Read :meth:`to_json`'s text."""
        raw = json.loads(text)
        return cls(**raw | {"provider": Provider(raw["provider"])})
