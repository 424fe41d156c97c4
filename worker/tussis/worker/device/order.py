"""What a device process is told at its start. Imports nothing heavy: the command line reads it too."""

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
    """For trials and tests: the whole path of a GPU worker, without a GPU."""

    @property
    def device(self) -> Device:
        """What the results carry, and whose queue the worker takes from: what computes, not what was hoped for."""
        return Device.CPU if self is Provider.CPU else Device.GPU


@dataclass(frozen=True)
class OnDevice:
    """Which device a worker is for."""

    provider: Provider
    index: int = 0
    """CUDA's number of the device, from 0."""


@dataclass(frozen=True)
class DeviceOrder:
    """Everything that a device process needs. No secrets: it has no connection but its socket."""

    model: str
    """Path of the ONNX file."""
    sha256: str
    """Of the file that the worker's children speak for."""
    provider: Provider
    device_index: int
    threads: int
    """That onnxruntime uses on the CPU."""
    carriers: int
    """The children of the worker: no more recordings wait at a time."""
    batch_segments: int
    """The most segments of one run, padding included."""
    batch_wait_ms: float
    """How long a recording waits for company, at most."""
    deadline_s: float
    """Of one run."""
    run_dir: str
    cache_dir: str
    """Where TensorRT keeps its engines."""
    metered: bool
    lifeline: int
    """A file descriptor whose end says that the parent is gone."""
    log_format: str
    log_level: str

    def to_json(self) -> str:
        """As one argument of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> DeviceOrder:
        """The other way round."""
        raw = json.loads(text)
        return cls(**raw | {"provider": Provider(raw["provider"])})
