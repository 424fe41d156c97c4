"""The floor: the cost of the model alone, in processes that do nothing else.

It is ``session.run`` of the original float32 graph, one recording a call, with the tensors ready in memory and threads
that do not spin. It is measured in two layouts: one process with a thread for each core, and one process for each core.
The faster layout counts. This module calls onnxruntime directly, not through :mod:`tussis.worker.detector.session`, so
that the floor does not change when the detector becomes faster.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tussis.worker.bench.crew import Crew, Spent
from tussis.worker.detector.contract import SEGMENT_MASK, SPECTROGRAMS

#: The seed of the random network that is exported when no model is given.
SEED = 7
#: The largest valid spread of the floor between its fastest and slowest round. Above it, wall times are invalid.
MOST_SPREAD = 0.10


@dataclass(frozen=True, slots=True)
class Rounds:
    """Passes over one workload, and their medians."""

    passes: tuple[Spent, ...]

    @property
    def wall_s(self) -> float:
        """The median wall time."""
        return statistics.median(spent.wall_s for spent in self.passes)

    @property
    def cpu_s(self) -> float:
        """The median CPU time."""
        return statistics.median(spent.cpu_s for spent in self.passes)

    @property
    def spread(self) -> float:
        """The difference between the longest and the shortest wall time, as a share of the median."""
        walls = [spent.wall_s for spent in self.passes]
        return (max(walls) - min(walls)) / self.wall_s


def unsteady(spread: float) -> str:
    """Why wall times measured with this spread of the floor are invalid; empty when they are valid."""
    if spread <= MOST_SPREAD:
        return ""
    return (
        f"the floor varied by {spread:.0%}, more than {MOST_SPREAD:.0%}: end the other programs of this machine,"
        " or take a machine that does not share its cores, and measure again with --rounds 9"
    )


@dataclass(frozen=True, slots=True)
class Layout:
    """The number of processes, and of threads in each."""

    processes: int
    threads: int

    @property
    def name(self) -> str:
        """The layout as text."""
        return f"{self.processes} x {self.threads}"


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def layouts(count: int) -> tuple[Layout, ...]:
    """One process with ``count`` threads, and ``count`` processes with one thread; on a single core only one layout."""
    return (Layout(1, 1),) if count == 1 else (Layout(1, count), Layout(count, 1))


def original_model(cache: Path) -> Path:
    """The float32 ResNet-18 with random weights, exported once into ``cache``. Raises the errors of the export."""
    path = cache / "bench" / f"random-{SEED}.onnx"
    # The manifest is written last.
    if not (path.is_file() and path.with_suffix(".json").is_file()):
        from tussis.worker.modelling.export import export_random

        path.parent.mkdir(parents=True, exist_ok=True)
        export_random(path, SEED)
    return path


def floor(model: Path, layout: Layout, segments: Sequence[int]) -> Crew:
    """The processes of one layout. An item is the number of segments of a recording.

    ``segments`` must contain every number that is an item of a later run.
    """
    return Crew(layout.processes, _session_run, str(model), layout.threads, sorted(set(segments)))


def _session_run(model: str, threads: int, sizes: Sequence[int]) -> Callable[[int], object]:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])
    noise = np.random.default_rng(0)
    feeds = {
        size: {
            SPECTROGRAMS: noise.normal(size=(1, size, 3, 224, 224)).astype(np.float32),
            SEGMENT_MASK: np.ones((1, size), dtype=np.bool_),
        }
        for size in sizes
    }
    for feed in feeds.values():
        session.run(None, feed)
    return lambda size: session.run(None, feeds[size])
