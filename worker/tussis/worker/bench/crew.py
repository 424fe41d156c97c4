"""Processes that do one kind of work at full speed, without servers. Each takes the next item."""

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

#: Seconds that a process may take to be ready, and that one run may take.
_START_S, _RUN_S = 120.0, 600.0

#: Called once in each process with the arguments of the crew. It returns the function that is called for each item.
Make: TypeAlias = Callable[..., Callable[[int], object]]


@dataclass(frozen=True, slots=True)
class Spent:
    """The wall time and CPU time of one pass."""

    wall_s: float
    cpu_s: float
    """User and system time of all measured processes."""


class Crew:
    """``processes`` processes, for the time of a ``with`` block, idle between runs. Raises :class:`TussisError`.

    ``make`` is a function at the top level of a module, because the new processes import it.
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
        """Do the work for each item. Each process takes the next item when it is free."""
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
        pipe.send(error)  # the command prints it in one line
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
