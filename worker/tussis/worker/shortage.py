"""Detect out-of-memory errors. Python, torch, onnxruntime and FFmpeg each report them differently."""

from __future__ import annotations

import errno

from tussis.shared.errors import OutOfMemory, TussisError

# Lower case. torch: "DefaultCPUAllocator: can't allocate memory", "not enough memory", "CUDA out of memory";
# onnxruntime: "std::bad_alloc", "bad allocation", "Failed to allocate memory", "CUBLAS_STATUS_ALLOC_FAILED";
# the C library, through libsndfile and ffmpeg: "Cannot allocate memory".
_SAID = (
    "can't allocate",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "failed to allocate",
    "alloc_failed",
)


def is_shortage(error: BaseException) -> bool:
    """Whether the error, or an error that caused it, reports too little memory.

    The text of a :class:`TussisError` is not searched, because it may contain a file name. Its causes are.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        if _says_so(current):
            return True
        seen.add(id(current))
        current = current.__cause__ or current.__context__
    return False


def _says_so(error: BaseException) -> bool:
    if isinstance(error, MemoryError | OutOfMemory):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    if isinstance(error, TussisError):
        return False
    text = str(error).lower()
    return any(words in text for words in _SAID)
