"""The highest memory that a process has had. Imported by the processes that tests measure, so it imports little."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak_bytes() -> int:
    """The largest resident memory of this process so far, in bytes.

    On Linux ``ru_maxrss`` is not used: it begins with the memory of the process that started this one, so that a child
    of a large pytest process seems not to grow.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
