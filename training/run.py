"""The two commands: the training from the recordings to the ONNX file, and its evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from training import cache, card, decide, figure, heads, results, scenes, validation
from training.evaluate import Effort, measured
from training.export import export
from training.fit import Plan, fit
from training.processes import set_up_process
from tussis.worker.detector.manifest import read_manifest

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a training."""

    scenes: int
    utterances: int
    checks: int
    epochs: int
    seed: int
    processes: int


def run_training(size: Size, data: Path, work: Path, model: Path, say: Say) -> None:
    """Run the whole training and write ``model`` and its manifest. Each step's result is kept in ``work``."""
    set_up_process()
    work.mkdir(parents=True, exist_ok=True)
    folder = work / f"scenes-{size.seed}-{size.scenes}"
    if not cache.complete(folder, size.scenes):
        say("decode the train split, synthesise speech")
        material = scenes.material(data, "train", size.utterances, work, size.seed, size.processes)
        for done in cache.computed(material, size.scenes, folder, size.seed, size.processes):
            say(f"{done} of {size.scenes} scenes")
        del material
    say("prepare the validation set")
    held = validation.validation(data, work, size.seed, size.checks)
    load = partial(cache.loaded, folder, size.scenes)
    plan = Plan(epochs=size.epochs, seed=size.seed)
    reference = fit(
        load,
        plan,
        size.processes,
        work / f"checkpoint-{size.seed}-{size.scenes}-{size.epochs}.pt",
        lambda network: str(decide.report(held, decide.answers(network, held))),
        say,
    )
    heads.refine(reference, load(), plan, say)
    given = decide.answers(reference, held)
    quiet = [decide.answer(reference, one) for one in validation.hours(data, work, size.seed, size.checks // 2)]
    decision = decide.decided(held, given, quiet)
    report = decide.report(held, given)
    manifest = export(reference, decision, {**asdict(size), **asdict(report), **asdict(decision)}, model)
    say(f"{report}; {decision}")
    say(f"{manifest.label}: {model}, {model.stat().st_size} bytes")


def run_evaluation(effort: Effort, model: Path, data: Path, split: str, file: Path, say: Say) -> None:
    """Measure ``model`` and write the card, the JSON file and the figure."""
    found, curve = measured(model, data, split, effort, say)
    file.with_suffix(".json").write_text(found.to_json(), "utf-8")
    threshold = read_manifest(model).threshold
    figure.drawn(curve.truth, curve.bag_logits, math.log(threshold / (1 - threshold)), file.with_suffix(".png"))
    file.write_text(card.rendered(results.read(file.with_suffix(".json"))), "utf-8")
    say(f"{file}: AUROC {found.recordings.auroc.value:.4f}")
