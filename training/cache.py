"""Compute scenes once and keep their images in shards, so that an interrupted run can be resumed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from training import scenes
from training.audio import decoded
from training.events import Span
from training.network import stretched
from training.pack import Wave
from training.processes import pool
from tussis.shared.dsp import HOP_SECONDS, SEGMENT_SECONDS, profile_named
from tussis.shared.dsp.constants import CONTENT_ROWS, IMAGE_SIZE
from tussis.shared.dsp.images import scaled_images
from tussis.shared.dsp.recording import cut_recording

SHARD: Final = 400
"""Scenes per shard."""
HEARD_S: Final = 0.12
"""A segment is labelled cough if it contains this much of a cough, in seconds, or 60 % of a shorter one."""

COUGH: Final = 1
NO_COUGH: Final = 0
UNCERTAIN: Final = -1

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Scenes:
    """The images of many scenes, concatenated."""

    images: Images
    """uint8 (N, 178, 224): the content of the contract's letterbox, [-1, 1] in 255 steps of 0.31 dB."""
    labels: npt.NDArray[np.int8]
    """int8 (N,): 1 cough, 0 no cough, -1 uncertain."""
    counts: npt.NDArray[np.int64]
    """int64 (scenes,): segments of each scene."""

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """int64 (scenes,): index of each scene's first segment."""
        return np.cumsum(self.counts) - self.counts

    @property
    def bags(self) -> npt.NDArray[np.bool_]:
        """bool (scenes,): whether the scene has a cough."""
        flags: npt.NDArray[np.bool_] = np.maximum.reduceat(self.labels, self.starts) == COUGH
        return flags


def plain_images(wave: Wave) -> torch.Tensor:
    """The images of one recording with ``documented``, before the letterbox: float32 (S, 160, 201), [-1, 1].

    Args:
        wave: float32 (n,) at 16 kHz.
    """
    profile = profile_named("documented")
    return scaled_images(cut_recording(torch.from_numpy(wave)[None], 16_000, profile))


def file_images(path: Path) -> torch.Tensor:
    """The images of a file, as :func:`plain_images`, at the level that Tussis uses."""
    profile = profile_named("documented")
    samples, rate_hz = decoded(path)
    return scaled_images(cut_recording(torch.from_numpy(samples), rate_hz, profile))


def quantised(images: torch.Tensor) -> Images:
    """Convert [-1, 1] to 0..255."""
    stored: Images = ((images + 1) * 127.5).round().to(torch.uint8).numpy()
    return stored


def segment_labels(count: int, coughs: tuple[Span, ...], uncertain: tuple[Span, ...]) -> npt.NDArray[np.int8]:
    """The labels of ``count`` segments: int8 (count,)."""
    labels = np.zeros(count, np.int8)
    for index in range(count):
        start = index * HOP_SECONDS
        end = start + SEGMENT_SECONDS
        if any(_overlap(span, start, end) >= min(HEARD_S, 0.6 * (span[1] - span[0])) for span in coughs):
            labels[index] = COUGH
        elif any(_overlap(span, start - 0.03, end + 0.03) > 0 for span in (*coughs, *uncertain)):
            labels[index] = UNCERTAIN
    if coughs and not (labels == COUGH).any():
        labels[labels == UNCERTAIN] = COUGH
    return labels


def _overlap(span: Span, start: float, end: float) -> float:
    return min(span[1], end) - max(span[0], start)


def computed(material: scenes.Material, count: int, folder: Path, seed: int, processes: int) -> Iterator[int]:
    """Compute those of ``count`` scenes that are missing in ``folder``. Yields the number of scenes done so far."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = -(-count // SHARD)
    missing = [shard for shard in range(shards) if not _file(folder, shard).exists()]
    done = shards - len(missing)
    yield min(count, done * SHARD)
    work = [(shard, min(SHARD, count - shard * SHARD), folder, seed) for shard in missing]
    if not work:
        return
    with pool(processes, _take, material) as executor:
        for future in as_completed([executor.submit(_shard, one) for one in work]):
            future.result()
            done += 1
            yield min(count, done * SHARD)


_material: scenes.Material | None = None


def _take(material: scenes.Material) -> None:
    """Called once in each process of the pool: the material is not sent with each shard."""
    global _material
    _material = material


def _shard(work: tuple[int, int, Path, int]) -> None:
    shard, count, folder, seed = work
    assert _material is not None
    images, labels, counts = [], [], []
    for index in range(count):
        scene = scenes.draw(_material, np.random.default_rng([seed, shard, index]))
        stored = quantised(plain_images(scene.wave))
        images.append(stored)
        labels.append(segment_labels(stored.shape[0], scene.coughs, scene.uncertain))
        counts.append(stored.shape[0])
    file = _file(folder, shard)
    np.save(_labels_file(folder, shard), np.concatenate(labels))
    np.save(_counts_file(folder, shard), np.array(counts, np.int64))
    partial = file.with_suffix(".partial.npy")
    np.save(partial, np.concatenate(images))
    partial.replace(file)  # last, and atomically: a shard with this file is complete


def complete(folder: Path, count: int) -> bool:
    """Whether all of ``count`` scenes are in the folder."""
    return all(_file(folder, shard).exists() for shard in range(-(-count // SHARD)))


def loaded(folder: Path, count: int) -> Scenes:
    """All shards of ``count`` scenes, stretched to the letterbox's content: memory-mapped, 40 kB per segment."""
    shards = range(-(-count // SHARD))
    parts = [np.load(_file(folder, shard), mmap_mode="r") for shard in shards]
    whole = folder / f"stretched-{count}.npy"
    if not whole.exists():
        partial = whole.with_suffix(".partial.npy")
        shape = (sum(part.shape[0] for part in parts), CONTENT_ROWS, IMAGE_SIZE)
        images = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
        at = 0
        for part in parts:
            for start in range(0, part.shape[0], 256):
                some = stretched(torch.from_numpy(part[start : start + 256].copy()).float()).round().to(torch.uint8)
                images[at : at + some.shape[0]] = some.numpy()
                at += some.shape[0]
        images.flush()
        partial.replace(whole)
    return Scenes(
        np.load(whole, mmap_mode="r"),
        np.concatenate([np.load(_labels_file(folder, shard)) for shard in shards]),
        np.concatenate([np.load(_counts_file(folder, shard)) for shard in shards]),
    )


def _file(folder: Path, shard: int) -> Path:
    return folder / f"images-{shard:04d}.npy"


def _labels_file(folder: Path, shard: int) -> Path:
    return folder / f"labels-{shard:04d}.npy"


def _counts_file(folder: Path, shard: int) -> Path:
    return folder / f"counts-{shard:04d}.npy"
