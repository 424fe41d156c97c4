"""The input of a training step: the choice of scenes and segments, and their augmentation."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.cache import COUGH, UNCERTAIN, Scenes

#: The most segments of a scene in a step. Every epoch draws others. Adjacent segments share three quarters of their
#: audio.
MOST_SEGMENTS: Final = 4
#: An epoch draws the share SHARE of the scenes with a cough, and the same share of those without. Of the latter, it
#: takes the share HARDEST with the largest mistakes in their last step, and the others at random.
SHARE: Final = 0.5
HARDEST: Final = 0.2
#: The range of the random level change of a scene.
LEVEL_DB: Final = (-13.0, 5.0)
#: The probability that a scene is mixed with another one without a cough, and the level of the other one.
OVER_ANOTHER: Final = 0.35
WEAKER_DB: Final = (-22.0, -4.0)


def order_of(
    truth: npt.NDArray[np.bool_], mistakes: npt.NDArray[np.float32], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """The scenes of one epoch. Difficult scenes are preferred only without a cough: a label "cough" may be wrong."""
    coughs, others = rng.permutation(np.flatnonzero(truth)), rng.permutation(np.flatnonzero(~truth))
    others = others[np.argsort(-mistakes[others], kind="stable")]
    hardest = math.ceil(others.size * HARDEST)
    rest = rng.permutation(others[hardest:])[: math.ceil(others.size * (SHARE - HARDEST))]
    chosen = np.concatenate([coughs[: math.ceil(coughs.size * SHARE)], others[:hardest], rest])
    return rng.permutation(chosen)


def batch(
    scenes: Scenes, chosen: npt.NDArray[np.int64], others: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Images (N, 178, 224), labels (B, S) int8 and mask (B, S) of the chosen scenes."""
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
    """Rows of at most ``MOST_SEGMENTS`` segments of a scene, in order, one with a cough included if there is one."""
    rows = np.arange(start, start + count)
    if count <= MOST_SEGMENTS:
        return rows
    kept = rng.permutation(rows)[:MOST_SEGMENTS]
    coughs = rows[labels[rows] == COUGH]
    if coughs.size and not (labels[kept] == COUGH).any():
        kept[0] = rng.choice(coughs)
    return np.sort(kept)


def _varied(images: Tensor, counts: npt.NDArray[np.int64], rng: np.random.Generator) -> Tensor:
    """Scale images from 0 to 255 to [-1, 1], in place. Change level and pitch of each scene and blank bars."""
    at = 0
    for count in counts:
        part = images[at : at + count]
        at += int(count)
        # A recording is normalised to its peak, so a click beside the cough changes the level. A silent second channel
        # does too (the mean of the channels is taken after the normalisation). A decibel is 2 / 80.
        part.mul_(1 / 127.5).add_(float(rng.uniform(*LEVEL_DB)) / 40 - 1)
        if rng.random() < 0.4:
            part[:] = part.roll(int(rng.integers(-5, 6)), dims=1)
        if rng.random() < 0.3:
            row, rows = int(rng.integers(0, 165)), int(rng.integers(2, 22))
            part[:, row : row + rows] = -1
        if rng.random() < 0.15:
            # Only short bars: blanked frames could hide the cough of the label.
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
    """Mix some scenes with another scene, in place. The powers are added; phases are ignored."""
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
        # [-1, 1] is 80 dB. The floor at -1 is treated as no power.
        a_neper = 8 * math.log(10) / 2
        power = torch.exp(a_neper * (part + 1)) + torch.exp(a_neper * (beneath + 1)) - 1
        part.copy_((torch.log(power) / a_neper - 1).clamp_(-1, 1))
