"""Telling a shortage of memory from every other fault, whichever library reports it."""

from __future__ import annotations

import errno
from typing import Final

#: How torch, onnxruntime, the C++ runtime, CUDA and the kernel word it; compared without regard to case.
_WORDS: Final = (
    "can't allocate",
    "not enough memory",
    "bad_alloc",
    "bad allocation",
    "failed to allocate",
    "out of memory",
    "cublas_status_alloc_failed",
)


def is_shortage(error: BaseException) -> bool:
    """Whether the error, or one that it was raised from or during, says that memory is short."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if _says_so(one):
            return True
        pending += [one.__cause__, one.__context__]
    return False


def _says_so(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    text = str(error).lower()
    return any(words in text for words in _WORDS)
