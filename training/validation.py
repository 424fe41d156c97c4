"""The validation data, computed once: the recordings of ``val``, scenes made from them, and probes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training import pack, probes, scenes, trials
from training.cache import file_images, plain_images, quantised, segment_labels
from training.pack import Wave


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One recording of the validation."""

    images: npt.NDArray[np.uint8]
    """uint8 (S, 160, 201)."""
    is_cough: bool
    labels: npt.NDArray[np.int8]
    """(S,), labels of the segments. All 0 for recordings and probes, where they are unknown."""


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """The recordings of ``val``, scenes made from them, and probes, which test for shortcuts (``training.probes``)."""

    recordings: tuple[Item, ...]
    scenes: tuple[Item, ...]
    probes: tuple[Item, ...]


def validation(root: Path, folder: Path, seed: int, count: int) -> Validation:
    """The recordings, ``count`` scenes, and all probes of up to ``max(10, count // 6)`` coughs; kept in ``folder``."""
    file = folder / f"validation-{seed}-{count}.npz"
    if not file.exists():
        partial = file.with_suffix(".partial.npz")
        _write(partial, _built(root, folder, seed, count))
        partial.replace(file)
    return _read(file)


def hours(root: Path, folder: Path, seed: int, count: int) -> list[npt.NDArray[np.uint8]]:
    """Images of ``count`` scenes of 15 s without a cough, kept in ``folder``. Uses ``val``'s classes except sneezes."""
    file = folder / f"hours-{seed}-{count}.npz"
    if not file.exists():
        backgrounds: dict[str, list[Wave]] = {}
        for clip in pack.clips(root, "val"):
            if not clip.is_cough and clip.kind != trials.SNEEZE:
                backgrounds.setdefault(clip.kind, []).append(pack.wave(clip.path))
        kinds = sorted(backgrounds)
        images = []
        for index in range(count):
            rng = np.random.default_rng([seed, 21, index])
            own, other = backgrounds[kinds[index % len(kinds)]], backgrounds[kinds[(index + 1) % len(kinds)]]
            images.append(_stored(trials.scene(own, other[int(rng.integers(len(other)))], rng)))
        partial = file.with_suffix(".partial.npz")
        np.savez(partial, images=np.concatenate(images), counts=np.array([one.shape[0] for one in images]))
        partial.replace(file)
    with np.load(file) as kept:
        return np.split(kept["images"], np.cumsum(kept["counts"])[:-1])


def _built(root: Path, folder: Path, seed: int, count: int) -> Validation:
    recordings = []
    for clip in pack.clips(root, "val"):
        images = quantised(file_images(clip.path))
        recordings.append(Item(images, clip.is_cough, np.zeros(images.shape[0], np.int8)))
    material = scenes.material(root, "val", max(20, count // 4), folder, seed, processes=2)
    mixed = []
    for index in range(count):
        scene = scenes.draw(material, np.random.default_rng([seed, 9, index]))
        images = _stored(scene.wave)
        labels = segment_labels(images.shape[0], scene.coughs, scene.uncertain)
        mixed.append(Item(images, scene.is_cough, labels))
    probed = []
    for sound in material.coughs[: max(10, count // 6)]:
        for _, wave in probes.variants(sound.wave, np.random.default_rng(seed)):
            images = _stored(wave)
            probed.append(Item(images, True, np.zeros(images.shape[0], np.int8)))
    return Validation(tuple(recordings), tuple(mixed), tuple(probed))


def _stored(wave: Wave) -> npt.NDArray[np.uint8]:
    return quantised(plain_images(wave))


def _write(file: Path, built: Validation) -> None:
    parts = (built.recordings, built.scenes, built.probes)
    items = [item for part in parts for item in part]
    np.savez(
        file,
        images=np.concatenate([item.images for item in items]),
        labels=np.concatenate([item.labels for item in items]),
        counts=np.array([item.images.shape[0] for item in items]),
        coughs=np.array([item.is_cough for item in items]),
        parts=np.array([len(part) for part in parts]),
    )


def _read(file: Path) -> Validation:
    with np.load(file) as kept:
        ends = np.cumsum(kept["counts"])[:-1]
        images, labels = np.split(kept["images"], ends), np.split(kept["labels"], ends)
        coughs, parts = kept["coughs"], kept["parts"]
    items = [Item(*item) for item in zip(images, (bool(flag) for flag in coughs), labels, strict=True)]
    first, second = int(parts[0]), int(parts[0] + parts[1])
    return Validation(tuple(items[:first]), tuple(items[first:second]), tuple(items[second:]))
