"""The processes of a measured program, and their CPU time."""

from __future__ import annotations

from typing import Any

import psutil

from tussis.shared.errors import ServerFailed
from tussis.worker.local.running_program import RunningProgram


def process_tree(program: RunningProgram) -> list[Any]:
    """The process and its descendants. Raises :class:`ServerFailed` when it has ended."""
    try:
        parent = psutil.Process(program.process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        raise ServerFailed(f"the {program.name} ended: {program.last_message()}; see {program.log}") from None


def cpu_s(program: RunningProgram) -> float:
    """User and system seconds of the process and its descendants, each since its start."""
    return sum(cpu_parts(program))


def cpu_parts(program: RunningProgram) -> tuple[float, float]:
    """The same, separately for the process and for its descendants."""
    parent, *children = map(_cpu_s, process_tree(program))
    return parent, sum(children)


def _cpu_s(process: Any) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)
