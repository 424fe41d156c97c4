"""Which errors say that memory is short."""

from __future__ import annotations

import errno
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tussis.shared.errors import CorruptAudio, InferenceFailed, OutOfMemory, TransientError
from tussis.worker.detector.session import RunFailed
from tussis.worker.shortage import is_shortage


def _of(call: Callable[[], object]) -> BaseException:
    """The library's own error for more memory than any machine has."""
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RunFailed("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 9"),
        RunFailed("[ONNXRuntimeError] : 1 : FAIL : std::bad_alloc"),
        RuntimeError("bad allocation"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        OutOfMemory("the run does not fit: out of memory"),
    ],
)
def test_a_shortage_is_recognised(error: BaseException) -> None:
    assert is_shortage(error)


def test_the_libraries_own_errors_are_recognised() -> None:
    assert is_shortage(_of(lambda: torch.empty(2**55, dtype=torch.float32)))
    assert is_shortage(_of(lambda: np.empty(2**55, dtype=np.float32)))


def _raised_from() -> None:
    try:
        raise MemoryError
    except MemoryError as error:
        raise InferenceFailed("the model failed") from error


def _raised_during() -> None:
    try:
        raise RuntimeError("std::bad_alloc")
    except RuntimeError:
        raise InferenceFailed("while tidying up") from None


@pytest.mark.parametrize("call", [_raised_from, _raised_during])
def test_it_is_seen_through_what_was_raised_from_it_or_during_it(call: Callable[[], None]) -> None:
    with pytest.raises(InferenceFailed) as caught:
        call()
    assert is_shortage(caught.value)


def test_a_cycle_of_causes_ends() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__context__, other.__context__ = other, one
    assert not is_shortage(one)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        OSError(errno.EIO, "I/O"),
        KeyError("x"),
        # The text of our own errors may hold a file's name.
        CorruptAudio("s3://b/out of memory.wav is damaged"),
    ],
)
def test_other_faults_are_none(error: BaseException) -> None:
    assert not is_shortage(error)


def test_it_passes() -> None:
    assert issubclass(OutOfMemory, TransientError)
    assert OutOfMemory.error_class == "out_of_memory"
