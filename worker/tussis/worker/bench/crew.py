"""Processes that do one kind of work as fast as they can, each taking the next item: for work without servers."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self, TypeAlias

from tussis.shared.errors import TussisError

#: Seconds for a process to be ready, and for one run.
_START_S, _RUN_S = 120.0, 600.0

#: Called once in each process, with the arguments of the crew: makes what is called for each item.
Make: TypeAlias = Callable[..., Callable[[int], object]]


@dataclass(frozen=True, slots=True)
class Spent:
    """What one pass took."""

    wall_s: float
    cpu_s: float
    """Of all processes that were measured, user and system."""


class Crew:
    """``processes`` processes, from ``with`` to its end. Idle between runs. Raises :class:`TussisError`.

    ``make`` is a function of a module: the processes are new ones, and import it.
    """

    def __init__(self, processes: int, make: Make, *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._next = context.Value("l", 0)
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, self._next, make, arguments), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Self:
        try:
            for pipe in self._pipes:
                _answer(pipe, _START_S)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def run(self, items: Sequence[int]) -> Spent:
        """Do the work for each item, every process taking the next one."""
        self._next.value = 0
        began = time.monotonic()
        for pipe in self._pipes:
            pipe.send(list(items))
        cpu = sum(_answer(pipe, _RUN_S) for pipe in self._pipes)
        return Spent(time.monotonic() - began, cpu)

    def _close(self) -> None:
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.send(None)
            pipe.close()
        for process in self._processes:
            process.join(10)
            process.kill()
            process.join()


def _answer(pipe: Connection, timeout_s: float) -> float:
    try:
        if pipe.poll(timeout_s):
            answer = pipe.recv()
            if isinstance(answer, TussisError):
                raise answer
            return float(answer)
    except EOFError:
        pass
    raise TussisError("a process of the measurement ended or hangs: see what it printed")


def _serve(pipe: Connection, upcoming: Any, make: Make, arguments: Sequence[Any]) -> None:
    try:
        work = make(*arguments)
    except TussisError as error:
        pipe.send(error)  # the command says it, in one line
        return
    pipe.send(0.0)
    with suppress(EOFError, KeyboardInterrupt):
        while (items := pipe.recv()) is not None:
            began = time.process_time()
            while True:
                with upcoming.get_lock():
                    index = upcoming.value
                    upcoming.value += 1
                if index >= len(items):
                    break
                work(items[index])
            pipe.send(time.process_time() - began)
