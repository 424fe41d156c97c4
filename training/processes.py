"""Processes that share a piece of work. They are new interpreters, never forks.

A fork has one thread. A lock that another thread held at that moment stays locked in it: its first allocation, log line
or operation of torch may wait forever, and so does whoever waits for its result.
"""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Final

import torch

CONTEXT: Final = multiprocessing.get_context("spawn")


@contextmanager
def pool(
    processes: int, prepare: Callable[..., None] | None = None, *arguments: object
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes with one thread of torch each. After an error, work that has not begun is dropped.

    Unlike ``multiprocessing.Pool``, it raises ``BrokenProcessPool`` when a process dies.

    Args:
        processes: their number.
        prepare: called once in each process with ``arguments``. All of them must be picklable, as must be all work.
    """
    executor = ProcessPoolExecutor(processes, CONTEXT, initializer=_begin, initargs=(prepare, arguments))
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def set_up_process() -> None:
    """Give torch one thread, and make glibc keep freed memory.

    A step of the training frees and allocates tens of megabytes, which took a third of its time.
    """
    torch.set_num_threads(1)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # only glibc has mallopt
        mmap_max, trim_threshold = -4, -1  # malloc.h
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


def _begin(prepare: Callable[..., None] | None, arguments: tuple[object, ...]) -> None:
    set_up_process()
    if prepare is not None:
        prepare(*arguments)
