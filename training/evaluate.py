"""Measure the exported model with the worker's code, on a split that was not used for training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from training import pack, probes, trials
from training.events import Span, spans
from training.export import training_of
from training.pack import Clip, Wave
from training.product import Askers, Scored, askers, score_file, score_wave
from training.results import Alarms, Group, Localisation, Measured, Model, Probe, Recordings, Shift
from tussis.shared.dsp import HOP_SECONDS, SEGMENT_SECONDS, profile_named
from tussis.shared.errors import AudioError
from tussis.worker.detector.detector import Detector
from tussis.worker.detector.manifest import Manifest, read_manifest
from tussis.worker.evaluation import measures
from tussis.worker.evaluation.measures import Floats, Truth

SNRS_DB: Final = (10.0, 5.0, 0.0)
NOISES_DB: Final = (None, 20.0, 10.0, 0.0)
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Effort:
    """The amount of data that is measured."""

    processes: int = 2
    scenes_a_class: int = 33
    """Scenes of 15 s per class without added noise: with 15 classes, 2.06 hours."""
    noisy_scenes_a_class: int = 16
    """Scenes per class at each of the three levels of noise: with 15 classes, 1 hour per level."""
    coughs: int | None = None
    """The most coughs that are mixed and altered. None: all of the split."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """The data of the figure, over the split's recordings."""

    truth: Truth
    """bool (n,), true for coughs."""
    bag_logits: Floats
    """(n,)."""


def measured(model: Path, data: Path, split: str, effort: Effort, say: Say) -> tuple[Measured, Curve]:
    """Make all measurements on the recordings of one split."""
    with askers(model, effort.processes) as ask:
        return _measured(ask, model, data, split, effort, say)


def _measured(ask: Askers, model: Path, data: Path, split: str, effort: Effort, say: Say) -> tuple[Measured, Curve]:
    manifest = read_manifest(model)
    clips = pack.clips(data, split)
    say(f"{len(clips)} recordings under documented, training, legacy")
    given = {name: _profile(ask, clips, name) for name in ("documented", "training", "legacy")}
    plain = [one for one in given["documented"] if one is not None]
    if len(plain) != len(clips):
        raise RuntimeError("a recording of the pack was refused under the model's own profile")
    say("decode")
    waves = [(clip, pack.wave(clip.path)) for clip in clips]
    coughs = [wave for clip, wave in waves if clip.is_cough and spans(wave).events][: effort.coughs]
    backgrounds: dict[str, list[Wave]] = {}
    for clip, wave in waves:
        if not clip.is_cough:
            backgrounds.setdefault(clip.kind, []).append(wave)
    localisation = {}
    for snr_db in SNRS_DB:
        say(f"coughs at known places, {snr_db:g} dB")
        localisation[f"{snr_db:g}"] = _localisation(ask, manifest, coughs, backgrounds, snr_db)
    alarms = {}
    for noise_db in NOISES_DB:
        count = effort.scenes_a_class if noise_db is None else effort.noisy_scenes_a_class
        say(f"background without coughs, noise {noise_db}")
        alarms["none" if noise_db is None else f"{noise_db:g}"] = _alarms(ask, backgrounds, noise_db, count)
    say("probes")
    probed = _probes(ask, manifest, coughs)
    say("formats, speed")
    curve = Curve(np.array([clip.is_cough for clip in clips]), np.array([one.bag_logit for one in plain]))
    found = Measured(
        split=split,
        model=_model(model, manifest),
        recordings=_recordings(manifest, clips, plain),
        localisation=localisation,
        alarms=alarms,
        probes=probed,
        profiles={name: _shift(manifest, clips, plain, given[name]) for name in ("training", "legacy")},
        formats=_formats(model, data) if split == "test" else {},
    )
    return found, curve


# --- recordings as they are -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    profile: str


def _score_file(detector: Detector, file: _File) -> Scored | None:
    try:
        return score_file(detector, file.path, profile_named(file.profile))
    except AudioError:
        return None


def _profile(ask: Askers, clips: Sequence[Clip], name: str) -> list[Scored | None]:
    return ask.each(_score_file, [_File(clip.path, name) for clip in clips])


def _recordings(manifest: Manifest, clips: Sequence[Clip], given: Sequence[Scored]) -> Recordings:
    truth = np.array([clip.is_cough for clip in clips])
    bags = np.array([one.bag_logit for one in given])
    loudest = np.array([one.segment_logits.max() for one in given])
    flagged = np.array([one.bag > manifest.threshold for one in given])
    kinds = np.array([clip.kind for clip in clips])
    channels = np.array([clip.channel for clip in clips])
    plain = kinds != pack.EVALUATION_ONLY

    def group(members: Truth) -> Group:
        return Group(int(members.sum()), measures.share(flagged[members]))

    return Recordings(
        coughs=int(truth.sum()),
        backgrounds=int((~truth).sum()),
        auroc=measures.auroc_interval(truth, bags),
        auroc_without_digits=measures.auroc_interval(truth[plain], bags[plain]),
        auroc_of_loudest_segment=measures.auroc_interval(truth, loudest),
        average_precision=measures.average_precision(truth, bags),
        calibration_error=measures.calibration_error(truth, np.array([one.bag for one in given])),
        sensitivity=measures.share(flagged[truth]),
        specificity=measures.share(~flagged[~truth]),
        by_channel={name: group(channels == name) for name in ("telephone", "messenger")},
        auroc_by_channel={
            name: measures.auroc_interval(truth[chosen], bags[chosen])
            for name in ("telephone", "messenger")
            for chosen in [(channels == name) | ~truth]
        },
        by_class={str(kind): group(kinds == kind) for kind in sorted(set(kinds[~truth]))},
    )


def _shift(manifest: Manifest, clips: Sequence[Clip], plain: Sequence[Scored], other: Sequence[Scored | None]) -> Shift:
    pairs = [(clip, old, new) for clip, old, new in zip(clips, plain, other, strict=True) if new is not None]
    before = np.array([old.bag for _, old, _ in pairs])
    after = np.array([new.bag for _, _, new in pairs])
    moved = np.abs(after - before)
    return Shift(
        auroc=measures.auroc_interval(
            np.array([clip.is_cough for clip, _, _ in pairs]), np.array([new.bag_logit for _, _, new in pairs])
        ),
        mean=float(moved.mean()),
        p99=float(np.percentile(moved, 99)),
        flipped=int(((before > manifest.threshold) != (after > manifest.threshold)).sum()),
        recordings=len(pairs),
        refused=len(clips) - len(pairs),
    )


# --- coughs at known places -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Mixture:
    cough: Wave
    background: Wave
    snr_db: float
    seed: int


def _score_mixture(detector: Detector, task: _Mixture) -> tuple[Scored, Span]:
    wave, place = trials.mixture(task.cough, task.background, task.snr_db, np.random.default_rng(task.seed))
    return score_wave(detector, wave), place


def _localisation(
    ask: Askers, manifest: Manifest, coughs: Sequence[Wave], backgrounds: dict[str, list[Wave]], snr_db: float
) -> Localisation:
    # Every class in turn, including sneezes: the model must distinguish them from the cough.
    pool = [kind for kind in sorted(backgrounds) if kind != pack.EVALUATION_ONLY]
    tasks = []
    for index, cough in enumerate(coughs):
        own = backgrounds[pool[index % len(pool)]]
        tasks.append(_Mixture(cough, own[(index // len(pool)) % len(own)], snr_db, 10_000 + index))
    labels, logits, hits, detected = [], [], [], []
    for scored, place in ask.each(_score_mixture, tasks):
        heard = [_heard(place, index) for index in range(scored.segments.shape[0])]
        certain = np.array([one != 0.5 for one in heard])
        labels.append(np.array([one == 1 for one in heard])[certain])
        logits.append(scored.segment_logits[certain])
        hits.append(heard[int(scored.segment_logits.argmax())] > 0)
        detected.append(scored.bag > manifest.threshold)
    return Localisation(
        mixtures=len(tasks),
        segment_auroc=measures.auroc_interval(np.concatenate(labels), np.concatenate(logits), draws=300),
        highest_on_cough=measures.share(np.array(hits)),
        detected=measures.share(np.array(detected)),
    )


def _heard(place: Span, index: int) -> float:
    """1: at least half of the cough is in the segment. 0: none of it. 0.5: in between."""
    start = index * HOP_SECONDS
    inside = min(place[1], start + SEGMENT_SECONDS) - max(place[0], start)
    if inside <= 0:
        return 0.0
    return 1.0 if inside >= 0.5 * (place[1] - place[0]) else 0.5


# --- hours without a cough --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Background:
    own: list[Wave]
    other: Wave
    noise_db: float | None
    seed: int


def _score_background(detector: Detector, task: _Background) -> tuple[bool, int]:
    wave = trials.scene(task.own, task.other, np.random.default_rng(task.seed))
    wave = trials.with_noise(wave, task.noise_db, np.random.default_rng([task.seed, 1]))
    scored = score_wave(detector, wave)
    cut = detector.manifest.threshold
    return scored.bag > cut, trials.merged([bool(one > cut) for one in scored.segments])


def _alarms(ask: Askers, backgrounds: dict[str, list[Wave]], noise_db: float | None, count: int) -> dict[str, Alarms]:
    def tasks() -> Iterator[_Background]:
        for number, kind in enumerate(kinds):
            # The weaker sound is neither a sneeze nor a digit, so that an alarm can be attributed to the class.
            apart = (kind, trials.SNEEZE, pack.EVALUATION_ONLY)
            others = [wave for other in kinds if other not in apart for wave in backgrounds[other]]
            for index in range(count):
                seed = 100_000 + 1_000 * number + index
                other = others[int(np.random.default_rng([seed, 2]).integers(len(others)))]
                yield _Background(backgrounds[kind], other, noise_db, seed)

    kinds = sorted(backgrounds)
    done = ask.each(_score_background, tasks())
    by_class = {kind: done[i * count : (i + 1) * count] for i, kind in enumerate(kinds)}
    sums = {
        "all": done,
        "everyday": [one for kind, found in by_class.items() if kind != trials.SNEEZE for one in found],
    }
    return {name: _counted(found) for name, found in {**sums, **by_class}.items()}


def _counted(found: Sequence[tuple[bool, int]]) -> Alarms:
    hours = len(found) * trials.SCENE_S / 3_600
    alarms = sum(count for _, count in found)
    return Alarms(hours, alarms, measures.rate(alarms, hours), measures.share(np.array([flag for flag, _ in found])))


# --- altered coughs ---------------------------------------------------------------------------------------


def _score_probes(detector: Detector, task: tuple[Wave, int]) -> dict[str, float]:
    wave, seed = task
    found = {"unaltered": score_wave(detector, wave).bag}
    for name, altered in probes.variants(wave, np.random.default_rng([seed, 5])):
        found[name] = score_wave(detector, altered).bag
    return found


def _probes(ask: Askers, manifest: Manifest, coughs: Sequence[Wave]) -> dict[str, Probe]:
    found = ask.each(_score_probes, [(wave, index) for index, wave in enumerate(coughs)])
    before = np.array([one["unaltered"] > manifest.threshold for one in found])
    return {
        name: Probe(len(found), measures.share(after[before]), measures.share(after))
        for name in found[0]
        for after in [np.array([one[name] > manifest.threshold for one in found])]
        if name != "unaltered"
    }


# --- formats and the file itself --------------------------------------------------------------------------


def _formats(model: Path, data: Path) -> dict[str, float]:
    detector = Detector.load(model, intra_op_threads=1)
    profile = profile_named(detector.manifest.profile)
    return {path.name: score_file(detector, path, profile).bag for path in sorted((data / "formats").iterdir())}


def _model(model: Path, manifest: Manifest) -> Model:
    detector = Detector.load(model, intra_op_threads=1)
    segments = 16
    spectrograms = np.random.default_rng(0).normal(size=(1, segments, 3, 224, 224)).astype(np.float32)
    spent = []
    for _ in range(12):
        began = time.perf_counter()
        detector.score(spectrograms, np.ones((1, segments), dtype=np.bool_))
        spent.append(time.perf_counter() - began)
    trained = training_of(model)
    return Model(
        label=manifest.label,
        sha256=manifest.sha256,
        bytes=model.stat().st_size,
        parameters=sum(math.prod(weights.dims) for weights in onnx.load(model).graph.initializer),
        threshold=manifest.threshold,
        bag_temperature=trained.pop("bag_temperature"),
        segment_temperature=trained.pop("segment_temperature"),
        segment_offset=trained.pop("segment_offset"),
        ms_a_segment=float(np.median(spent)) / segments * 1e3,
        trained=trained,
    )
