"""Telling a shortage of memory from a fault."""

from __future__ import annotations

import errno

import pytest
import torch

from tussis.shared.errors import CorruptAudio, InferenceFailed
from tussis.worker.shortage import is_shortage


def caused(error: Exception, cause: BaseException) -> Exception:
    try:
        raise error from cause
    except Exception as raised:
        return raised


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: std::bad_alloc"),
        RuntimeError("[ONNXRuntimeError] : 1 : FAIL : bad allocation"),
        RuntimeError("Failed to allocate memory for requested buffer of size 1073741824"),
        RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED"),
        caused(CorruptAudio("the stream is damaged"), MemoryError()),
        caused(InferenceFailed("no answer"), RuntimeError("std::bad_alloc")),
    ],
    ids=lambda error: f"{type(error).__name__}: {error}"[:40],
)
def test_a_shortage(error: Exception) -> None:
    assert is_shortage(error)


def test_the_real_errors_of_python_and_torch() -> None:
    with pytest.raises(MemoryError) as python:
        bytearray(1 << 60)
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(1 << 55)
    assert is_shortage(python.value)
    assert is_shortage(of_torch.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("a fault of our own making"),
        OSError(errno.ENOENT, "No such file"),
        # A file's name is in the text of our own errors.
        CorruptAudio("s3://b/out of memory.wav is damaged"),
    ],
)
def test_no_shortage(error: Exception) -> None:
    assert not is_shortage(error)
