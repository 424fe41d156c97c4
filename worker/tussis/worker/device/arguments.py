"""The arguments of a device process. Imports nothing heavy, because the command line imports it too."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum

from tussis.shared.queues import Device


class Provider(StrEnum):
    """The software that runs the graph."""

    CUDA = "cuda"
    TENSORRT = "tensorrt"
    CPU = "cpu"
    """A GPU worker without a GPU, for trials and tests."""

    @property
    def device(self) -> Device:
        """The device that computes. Results contain it, and the worker receives from its queue."""
        return Device.CPU if self is Provider.CPU else Device.GPU


@dataclass(frozen=True)
class OnDevice:
    """The device of a worker."""

    provider: Provider
    index: int = 0
    """CUDA's index of the device, from 0."""


@dataclass(frozen=True)
class DeviceArguments:
    """All arguments of a device process. It needs no secrets, because its socket is its only connection."""

    model: str
    """Path of the ONNX file."""
    sha256: str
    """SHA-256 of the model file whose manifest the worker's children have read."""
    provider: Provider
    device_index: int
    threads: int
    """Number of onnxruntime's threads on the CPU."""
    children: int
    """Number of the worker's children, which is the most recordings that wait at a time."""
    batch_segments: int
    """Most segments of one run, padding included."""
    batch_wait_ms: float
    """The longest time that a recording waits for others."""
    deadline_s: float
    """The deadline of one run."""
    run_dir: str
    cache_dir: str
    """The folder for TensorRT's engines."""
    metered: bool
    lifeline: int
    """A file descriptor of a pipe that is closed when the parent ends."""
    log_format: str
    log_level: str

    def to_json(self) -> str:
        """The arguments as JSON, for one argument of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> DeviceArguments:
        """Read the text of :meth:`to_json`."""
        raw = json.loads(text)
        return cls(**raw | {"provider": Provider(raw["provider"])})
