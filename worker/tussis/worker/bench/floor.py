"""The floor: what the model alone costs, in processes that do nothing else.

``session.run`` of the original float32 graph, one recording a call, its tensors ready in memory, threads that do not
spin. Measured in two layouts, one process with a thread a core and one process a core; the faster one counts. It is the
one place beside :mod:`tussis.worker.detector.session` that talks to onnxruntime: the floor stays what it is when the
detector learns to do better.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tussis.worker.bench.crew import Crew, Spent
from tussis.worker.detector.contract import SEGMENT_MASK, SPECTROGRAMS

#: Of the random network that is exported when no model is given.
SEED = 7
#: The floor may vary by so much from its least to its greatest round; beyond it, wall times say nothing.
MOST_SPREAD = 0.10


@dataclass(frozen=True, slots=True)
class Rounds:
    """Passes over one workload, medians of them."""

    passes: tuple[Spent, ...]

    @property
    def wall_s(self) -> float:
        """Median."""
        return statistics.median(spent.wall_s for spent in self.passes)

    @property
    def cpu_s(self) -> float:
        """Median."""
        return statistics.median(spent.cpu_s for spent in self.passes)

    @property
    def spread(self) -> float:
        """The wall times' greatest less their least, as a share of the median."""
        walls = [spent.wall_s for spent in self.passes]
        return (max(walls) - min(walls)) / self.wall_s


def unsteady(spread: float) -> str:
    """Why wall times that were measured beside a floor of this spread say nothing; empty where they do."""
    return f"the floor varied by {spread:.0%}" if spread > MOST_SPREAD else ""


@dataclass(frozen=True, slots=True)
class Layout:
    """How many processes, of how many threads each."""

    processes: int
    threads: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.processes} x {self.threads}"


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


def layouts(count: int) -> tuple[Layout, ...]:
    """One process with a thread a core, and one process a core; the same on a single core."""
    return (Layout(1, 1),) if count == 1 else (Layout(1, count), Layout(count, 1))


def original_model(cache: Path) -> Path:
    """The float32 ResNet-18 with random weights, exported once into ``cache``. Raises what the export does."""
    path = cache / "bench" / f"random-{SEED}.onnx"
    # The manifest is written last.
    if not (path.is_file() and path.with_suffix(".json").is_file()):
        from tussis.worker.modelling.export import export_random

        path.parent.mkdir(parents=True, exist_ok=True)
        export_random(path, SEED)
    return path


def floor(model: Path, layout: Layout, segments: Sequence[int]) -> Crew:
    """The processes of one layout; an item is a recording's number of segments.

    ``segments``: every number that an item of a later run is.
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
