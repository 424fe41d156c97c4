"""How CPU-bound work, from a recording's bytes to its scores, scales with the number of processes, without servers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from tussis.worker.bench.crew import Crew, Spent
from tussis.worker.bench.floor import Rounds, cores, unsteady
from tussis.worker.bench.material import workloads
from tussis.worker.bench.measurements import Column, Measurements, TargetCheck, hardware

#: Recordings a second of two processes, relative to one.
TARGET = 1.85
_SEGMENTS, _QUICK_SEGMENTS = 160, 60


def measure(model: Path, *, rounds: int, quick: bool, command: str) -> Measurements:
    """Compare one process with one for each core (two on a single core), one thread each, in turn; take the medians.

    Raises :class:`TussisError`.
    """
    (workload,) = workloads(["10s"], _QUICK_SEGMENTS if quick else _SEGMENTS, None)
    data = [item.data for item in workload.items]
    items = list(range(len(data)))
    counts = (1, max(2, cores()))
    spent: dict[int, list[Spent]] = {count: [] for count in counts}
    with ExitStack() as stack:
        crews = {count: stack.enter_context(Crew(count, _score, str(model), data)) for count in counts}
        for _ in range(rounds):
            for count, crew in crews.items():
                spent[count].append(crew.run(items * count))
    medians = {count: Rounds(tuple(found)) for count, found in spent.items()}
    rates = {count: len(items) * count / medians[count].wall_s for count in counts}
    one, many = counts
    return Measurements(
        title="Processes, from bytes to scores without servers",
        command=command,
        columns=(
            Column("processes"),
            Column("recordings", "1/s"),
            Column("CPU a recording", "ms", 1),
            Column("times one process"),
        ),
        rows=tuple(
            (count, rates[count], medians[count].cpu_s / (len(items) * count) * 1000, rates[count] / rates[one])
            for count in counts
        ),
        hardware=hardware(),
        notes=(
            f"{workload.line()}, per process; decode, preprocess and {model.stem} with one thread each. Medians of"
            f" {rounds} rounds; those of one process varied by {medians[one].spread:.0%}.",
        ),
        verdicts=(
            TargetCheck(
                f"{many} processes against one",
                rates[many] / rates[one],
                TARGET / 2 * many,
                void="a single core: take a machine with two" if cores() < 2 else unsteady(medians[one].spread),
            ),
        ),
    )


def _score(model: str, recordings: Sequence[bytes]) -> Callable[[int], object]:
    import torch

    from tussis.shared.dsp.profiles import profile_named
    from tussis.shared.settings import load_settings
    from tussis.worker.audio.decode import decode
    from tussis.worker.detector.detector import Detector
    from tussis.worker.pipeline.prepare import cut_audio, limits_of
    from tussis.worker.pipeline.scoring import OwnProcess

    torch.set_num_threads(1)
    detector = Detector.load(Path(model), intra_op_threads=1)
    scorer = OwnProcess(detector)
    scorer.warm_up()
    profile = profile_named(detector.manifest.profile)
    limits = limits_of(load_settings())

    def score(index: int) -> object:
        with torch.inference_mode():
            cut = cut_audio(decode(recordings[index], limits, profile.decoder), profile)
            return scorer.score(scorer.inputs(cut, profile), exclusive=False)

    score(0)
    return score
