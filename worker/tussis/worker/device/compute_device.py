"""The device that computes. Only this module has code for CUDA. It never falls back to another device."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import torch

from tussis.shared.dsp.constants import IMAGE_SIZE, MAX_SEGMENTS
from tussis.shared.errors import DeviceUnavailable, NotInstalled
from tussis.shared.installation import pip_line
from tussis.worker.detector.contract import SEGMENT_MASK, SPECTROGRAMS
from tussis.worker.detector.session import Execution
from tussis.worker.device.arguments import DeviceArguments, Provider

_CUDA: Final = "CUDAExecutionProvider"
_TENSORRT: Final = "TensorrtExecutionProvider"
_CPU: Final = "CPUExecutionProvider"


class ComputeDevice(Protocol):
    """A device as the engine uses it."""

    @property
    def execution(self) -> list[Execution]:
        """onnxruntime's providers, in order of preference."""
        ...

    @property
    def binding(self) -> tuple[str, int]:
        """Kind and index of the device, for onnxruntime's memory binding."""
        ...

    @property
    def name(self) -> str:
        """The device's name, for the log."""
        ...

    def verify(self, providers: Sequence[str]) -> None:
        """Compare an open session's providers with the requested ones. Raises :class:`DeviceUnavailable`."""

    def upload(self, samples: torch.Tensor) -> torch.Tensor:
        """Copy the samples to the device."""
        ...

    def stream(self) -> AbstractContextManager[Any]:
        """The context in which images are made and runs are started. They are computed in that order."""
        ...

    def release_memory(self) -> None:
        """Return memory to the device that is cached and not in use."""


@dataclass(frozen=True)
class CpuDevice:
    """The CPU, for trials and for tests of everything except CUDA itself."""

    execution: list[Execution]
    binding: tuple[str, int] = ("cpu", 0)
    name: str = "cpu"

    def verify(self, providers: Sequence[str]) -> None:
        return

    def upload(self, samples: torch.Tensor) -> torch.Tensor:
        return samples

    def stream(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def release_memory(self) -> None:
        return


@dataclass(frozen=True)
class CudaDevice:
    """One NVIDIA GPU. torch and onnxruntime share one stream, so that their work is done in order."""

    execution: list[Execution]
    binding: tuple[str, int]
    device: torch.device
    queue: Any
    """``torch.cuda.Stream``."""

    @property
    def name(self) -> str:
        return str(torch.cuda.get_device_name(self.device))

    def verify(self, providers: Sequence[str]) -> None:
        wanted = self.execution[0][0]
        if not providers or providers[0] != wanted:
            raise DeviceUnavailable(
                f"onnxruntime opened the model with {', '.join(providers)}, not with {wanted}: install CUDA 13 and"
                " cuDNN 9 with the extra gpu (the warning of onnxruntime above names the missing library)"
            )

    def upload(self, samples: torch.Tensor) -> torch.Tensor:
        # torch's allocator does not reuse the pinned memory before the copy is done.
        return samples.pin_memory().to(self.device, non_blocking=True)

    def stream(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = torch.cuda.stream(self.queue)
        return context

    def release_memory(self) -> None:
        # onnxruntime cannot use the memory that torch has cached, and torch cannot use onnxruntime's.
        torch.cuda.empty_cache()


def find_device(arguments: DeviceArguments) -> ComputeDevice:
    """Check the device of ``arguments`` before anything is loaded onto it.

    Raises:
        DeviceUnavailable: there is no CUDA driver or no such device.
        NotInstalled: onnxruntime is missing, or its build lacks the provider.
    """
    try:
        import onnxruntime
    except ImportError:
        raise NotInstalled(f"onnxruntime is not installed: {pip_line('gpu')}") from None
    if arguments.provider is Provider.CPU:
        return CpuDevice([(_CPU, {})])
    available = onnxruntime.get_available_providers()
    if _CUDA not in available:
        raise NotInstalled(
            f"onnxruntime {onnxruntime.__version__} has no {_CUDA} (it has {', '.join(available)}): install the"
            f" extra gpu in a new environment, without the package onnxruntime: {pip_line('gpu')}"
        )
    if arguments.provider is Provider.TENSORRT and _TENSORRT not in available:
        raise NotInstalled(f"onnxruntime {onnxruntime.__version__} has no {_TENSORRT}: use --provider cuda")
    if not torch.cuda.is_available():
        built = f"torch {torch.__version__} is built for CUDA {torch.version.cuda}"
        if torch.version.cuda is None:
            built = f"torch {torch.__version__} is built without CUDA"
        raise DeviceUnavailable(f"no CUDA device: {built} and finds none: check the driver with nvidia-smi")
    count = torch.cuda.device_count()
    if arguments.device_index >= count:
        raise DeviceUnavailable(f"no CUDA device {arguments.device_index}: the machine has {count}, numbered from 0")
    # torch has loaded the same libraries. If it has not loaded one, this finds it in torch's environment.
    onnxruntime.preload_dlls()
    return _cuda_device(arguments)


def _cuda_device(arguments: DeviceArguments) -> CudaDevice:
    device = torch.device("cuda", arguments.device_index)
    torch.cuda.set_device(device)
    # Results of float32 models must not depend on TensorFloat-32. A float16 model is faster.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    queue: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return CudaDevice(cuda_execution(arguments, queue.cuda_stream), ("cuda", arguments.device_index), device, queue)


def cuda_execution(arguments: DeviceArguments, stream: int) -> list[Execution]:
    """onnxruntime's providers and their options on a GPU; ``stream`` is CUDA's handle of the shared stream."""
    shared = {"device_id": str(arguments.device_index), "user_compute_stream": str(stream)}
    cuda: Execution = (
        _CUDA,
        shared
        | {
            # Batches have many shapes, and an exhaustive search would take seconds for each new one.
            "cudnn_conv_algo_search": "HEURISTIC",
            "do_copy_in_default_stream": "1",
            "use_tf32": "0",
        },
    )
    host: Execution = (_CPU, {})
    if arguments.provider is Provider.CUDA:
        return [cuda, host]
    folder = Path(arguments.cache_dir) / "tensorrt"
    folder.mkdir(parents=True, exist_ok=True)
    recordings = max(2, arguments.children)

    def shapes(batch: int, segments: int) -> str:
        return f"{SPECTROGRAMS}:{batch}x{segments}x3x{IMAGE_SIZE}x{IMAGE_SIZE},{SEGMENT_MASK}:{batch}x{segments}"

    tensorrt: Execution = (
        _TENSORRT,
        shared
        | {
            # Building an engine takes minutes, so it is kept for the next start, by model, device and version.
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(folder),
            "trt_profile_min_shapes": shapes(1, 1),
            "trt_profile_opt_shapes": shapes(
                max(1, min(recordings, arguments.batch_segments // MAX_SEGMENTS)), MAX_SEGMENTS
            ),
            "trt_profile_max_shapes": shapes(recordings, MAX_SEGMENTS),
        },
    )
    return [tensorrt, cuda, host]
