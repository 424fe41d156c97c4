"""A GPU worker without its GPU says so in one line, and never computes elsewhere in silence."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
import torch

from tests.unit.device.test_device_engine import arguments
from tussis.shared.errors import DeviceUnavailable, NotInstalled, TussisError
from tussis.shared.installation import pip_line
from tussis.shared.queues import Device
from tussis.worker.device.arguments import DeviceArguments, Provider
from tussis.worker.device.compute_device import CpuDevice, CudaDevice, cuda_execution, find_device

GPU_BUILD = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.fixture
def wanted(tiny_model: Path) -> DeviceArguments:
    return arguments(tiny_model, provider=Provider.CUDA, device_index=1)


def test_the_build_for_cpus_is_refused(wanted: DeviceArguments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(NotInstalled, match=rf"has no CUDAExecutionProvider .* {re.escape(pip_line('gpu'))}$"):
        find_device(wanted)


@pytest.mark.parametrize(
    ("available", "version", "count", "provider", "message"),
    [
        (False, None, 0, "cuda", "is built without CUDA and finds none"),
        (False, "13.0", 0, "cuda", "is built for CUDA 13.0 and finds none: check the driver"),
        (True, "13.0", 1, "cuda", "no CUDA device 1: the machine has 1, numbered from 0"),
        (True, "13.0", 2, "tensorrt", "has no TensorrtExecutionProvider: use --provider cuda"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    wanted: DeviceArguments,
    monkeypatch: pytest.MonkeyPatch,
    available: bool,
    version: str | None,
    count: int,
    provider: str,
    message: str,
) -> None:
    there = GPU_BUILD[1:] if provider == "tensorrt" else GPU_BUILD
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.version, "cuda", version)
    with pytest.raises(TussisError) as refused:
        find_device(DeviceArguments(**vars(wanted) | {"provider": Provider(provider)}))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("got", [["CPUExecutionProvider"], [], ["CUDAExecutionProvider", "CPUExecutionProvider"]])
def test_a_session_that_fell_back_in_silence_is_refused(wanted: DeviceArguments, got: list[str]) -> None:
    """Given a session of another provider than the one asked for first, then it is refused, TensorRT's too."""
    for provider in (Provider.CUDA, Provider.TENSORRT):
        execution = cuda_execution(DeviceArguments(**vars(wanted) | {"provider": provider}), 7)
        device = CudaDevice(execution, ("cuda", 1), torch.device("cuda", 1), SimpleNamespace())
        if got and got[0] == execution[0][0]:
            device.verify(got)
        else:
            with pytest.raises(DeviceUnavailable, match="onnxruntime opened the model with"):
                device.verify(got)


def test_torch_and_onnxruntime_share_a_stream_and_float32_stays_float32(wanted: DeviceArguments) -> None:
    for provider in (Provider.CUDA, Provider.TENSORRT):
        told: dict[str, Any] = dict(cuda_execution(DeviceArguments(**vars(wanted) | {"provider": provider}), 12345))
        for name in set(told) - {"CPUExecutionProvider"}:
            assert told[name]["user_compute_stream"] == "12345"
            assert told[name]["device_id"] == "1"
        assert told["CUDAExecutionProvider"]["use_tf32"] == "0"


def test_the_trial_on_a_cpu_is_no_gpu(wanted: DeviceArguments) -> None:
    device = find_device(DeviceArguments(**vars(wanted) | {"provider": Provider.CPU}))
    assert isinstance(device, CpuDevice)
    assert (Provider.CPU.device, Provider.CUDA.device, Provider.TENSORRT.device) == (Device.CPU, Device.GPU, Device.GPU)


def test_the_arguments_survive_the_command_line(wanted: DeviceArguments) -> None:
    assert DeviceArguments.from_json(wanted.to_json()) == wanted
