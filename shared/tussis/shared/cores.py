"""The number of CPU cores that this process may use: its affinity and the CPU quota of its control group (cgroup).

A container with a limit of two CPUs sees all cores of its host. ``os.process_cpu_count`` of Python 3.13 counts only the
affinity.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

_CGROUP: Final = Path("/proc/self/cgroup")
_MOUNTS: Final = Path("/proc/self/mountinfo")


def available_cores() -> int:
    """The number of cores in the affinity mask, or the CPU quota rounded up if that is less. At least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota(cgroup: Path = _CGROUP, mounts: Path = _MOUNTS) -> float | None:
    """The CPU quota of this process in CPUs: the smallest of all levels of its control groups. None means no limit.

    Reads ``cpu.max`` (version 2) and ``cpu.cfs_quota_us`` (version 1). They are specified in
    ``Documentation/admin-guide/cgroup-v2.rst`` and ``Documentation/scheduler/sched-bwc.rst`` of the kernel. ``cgroup``
    and ``mounts`` are ``/proc/self/cgroup`` and ``/proc/self/mountinfo``, see cgroups(7) and proc_pid_mountinfo(5). A
    file that cannot be read counts as no limit.
    """
    try:
        groups = [line.split(":", 2) for line in cgroup.read_text().splitlines()]
        mounted = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return None
    quotas = [
        quota
        for _, controllers, path in (group for group in groups if len(group) == 3)
        if not controllers or "cpu" in controllers.split(",")
        for folder in _levels(mounted, controllers, path)
        if (quota := _quota(folder)) is not None
    ]
    return min(quotas, default=None)


def _levels(mounted: list[list[str]], controllers: str, path: str) -> Iterator[Path]:
    """The folders of a control group and of its ancestors, as far as this process can see them."""
    for fields in mounted:
        if "-" not in fields:
            continue
        separator = fields.index("-")
        kind, options = fields[separator + 1], fields[-1].split(",")
        if kind != ("cgroup" if controllers else "cgroup2") or (controllers and "cpu" not in options):
            continue
        root, point = fields[3], Path(fields[4].replace("\\040", " "))
        # A container may see only its own group, mounted as the root. The path is then that of the host.
        inside = PurePosixPath(path)
        below = inside.relative_to(root) if inside.is_relative_to(root) else PurePosixPath()
        folder = point / below
        yield folder
        while folder != point:
            folder = folder.parent
            yield folder


def _quota(folder: Path) -> float | None:
    """The quota of one control group, in CPUs. None means no limit."""
    try:
        if (folder / "cpu.max").exists():
            limit, period = (folder / "cpu.max").read_text().split()
        else:
            limit = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        # "max" in version 2, -1 in version 1
        return None if limit == "max" or int(limit) <= 0 else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
