"""What a step of the training sees: which scenes, which of their segments, and how they are altered."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.cache import COUGH, UNCERTAIN, Scenes

#: Segments of a scene that a step sees, other ones in every epoch: neighbours share three quarters of their audio.
MOST_SEGMENTS: Final = 4
#: Of the scenes with a cough an epoch draws this share; of those without as many: some for being the worst mistaken
#: when last seen, the others at random.
SHARE: Final = 0.5
HARDEST: Final = 0.2
#: By how much a scene becomes louder.
LEVEL_DB: Final = (-13.0, 5.0)
#: How often the images of a scene get those of another one, without a cough, beneath them, and how much weaker.
OVER_ANOTHER: Final = 0.35
WEAKER_DB: Final = (-22.0, -4.0)


def order_of(
    truth: npt.NDArray[np.bool_], mistakes: npt.NDArray[np.float32], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """The scenes of one epoch. Hard ones come oftener only without a cough: a hard cough may be none."""
    coughs, others = rng.permutation(np.flatnonzero(truth)), rng.permutation(np.flatnonzero(~truth))
    others = others[np.argsort(-mistakes[others], kind="stable")]
    hardest = math.ceil(others.size * HARDEST)
    rest = rng.permutation(others[hardest:])[: math.ceil(others.size * (SHARE - HARDEST))]
    chosen = np.concatenate([coughs[: math.ceil(coughs.size * SHARE)], others[:hardest], rest])
    return rng.permutation(chosen)


def batch(
    scenes: Scenes, chosen: npt.NDArray[np.int64], others: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Images (N, 178, 224), labels (B, S) int8 and mask (B, S) of some scenes."""
    spans = zip(scenes.starts[chosen], scenes.counts[chosen], strict=True)
    parts = [_some(scenes.labels, int(start), int(count), rng) for start, count in spans]
    counts = np.array([part.shape[0] for part in parts])
    rows = np.concatenate(parts)
    images = torch.from_numpy(scenes.images[rows]).float()
    mask = torch.from_numpy(np.arange(counts.max()) < counts[:, None])
    labels = torch.full(mask.shape, UNCERTAIN, dtype=torch.int8)
    labels[mask] = torch.from_numpy(scenes.labels[rows])
    images = _varied(images, counts, rng)
    over_others(images, counts, scenes, others, rng)
    return images, labels, mask


def _some(labels: npt.NDArray[np.int8], start: int, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Rows of at most ``MOST_SEGMENTS`` segments of a scene, in order, a cough among them where the scene has one."""
    rows = np.arange(start, start + count)
    if count <= MOST_SEGMENTS:
        return rows
    kept = rng.permutation(rows)[:MOST_SEGMENTS]
    coughs = rows[labels[rows] == COUGH]
    if coughs.size and not (labels[kept] == COUGH).any():
        kept[0] = rng.choice(coughs)
    return np.sort(kept)


def _varied(images: Tensor, counts: npt.NDArray[np.int64], rng: np.random.Generator) -> Tensor:
    """Images of 0 to 255 to [-1, 1], in place: moved in level and pitch, scene by scene, and with bars blanked."""
    at = 0
    for count in counts:
        part = images[at : at + count]
        at += int(count)
        # The peak sets the level, so a click beside the cough moves it, and so does a second channel that is silent
        # (the mean of the channels is taken after the peak): 2 / 80 a decibel.
        part.mul_(1 / 127.5).add_(float(rng.uniform(*LEVEL_DB)) / 40 - 1)
        if rng.random() < 0.4:
            part[:] = part.roll(int(rng.integers(-5, 6)), dims=1)
        if rng.random() < 0.3:
            row, rows = int(rng.integers(0, 165)), int(rng.integers(2, 22))
            part[:, row : row + rows] = -1
        if rng.random() < 0.15:
            # Blanked frames could hide the cough that the label speaks of: only short bars.
            frame, frames = int(rng.integers(0, 212)), int(rng.integers(2, 13))
            part[:, :, frame : frame + frames] = -1
    return images.clamp_(-1, 1)


def over_others(
    images: Tensor,
    counts: npt.NDArray[np.int64],
    scenes: Scenes,
    others: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> None:
    """Some scenes with another one beneath, in place: powers added, as if the phases did not matter."""
    starts = scenes.starts
    at = 0
    for count in counts:
        part = images[at : at + count]
        at += int(count)
        if rng.random() >= OVER_ANOTHER or not others.size:
            continue
        other = int(others[int(rng.integers(others.size))])
        first, length = int(starts[other]), int(scenes.counts[other])
        rows = first + (np.arange(count) + int(rng.integers(length))) % length
        beneath = torch.from_numpy(scenes.images[rows]).float().mul_(1 / 127.5)
        beneath.add_(float(rng.uniform(*WEAKER_DB)) / 40 - 1).clamp_(-1, 1)
        # [-1, 1] is 80 dB; the floor at -1 stands for nothing and adds nothing.
        a_neper = 8 * math.log(10) / 2
        power = torch.exp(a_neper * (part + 1)) + torch.exp(a_neper * (beneath + 1)) - 1
        part.copy_((torch.log(power) / a_neper - 1).clamp_(-1, 1))
