"""The second, short training stage: only the heads are trained, on long recordings with features computed once.

The first stage uses at most four segments of a scene per step. A recording has up to 32 segments. After the first stage
alone, the attention misses a single cough among thirty segments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.cache import UNCERTAIN, Scenes
from training.fit import Plan, loss_of
from training.network import EMBEDDING, Reference
from tussis.shared.dsp.constants import MAX_SEGMENTS

#: The share of this stage's recordings that are a single scene. The others are several scenes, concatenated.
WHOLE: Final = 0.5


STEPS: Final = 2_500
#: Recordings per step.
BATCH: Final = 64
LEARNING_RATE: Final = 1e-3
DROPOUT: Final = 0.2


def refine(network: Reference, scenes: Scenes, plan: Plan, say: Callable[[str], None]) -> None:
    """Train all layers after the features of ``network``, in place, in 1 to 2 minutes. Leaves it in eval mode."""
    steps = min(STEPS, 10 * scenes.counts.size)  # few scenes, as in a test run, need fewer steps
    torch.manual_seed(plan.seed)
    network.eval()
    features = _features(network, scenes)
    say(f"heads: features of {features.shape[0]} segments")
    heads = (network.attention, network.segment_head, network.bag_head)
    weights = [network.peak_gain, *(weight for head in heads for weight in head.parameters())]
    optimiser = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=plan.weight_decay)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    rng = np.random.default_rng([plan.seed, 31])
    sums = [torch.zeros_like(weight) for weight in weights]
    averaged = 0
    network.bag_head.train()
    losses = []
    for step in range(steps):
        chosen, labels, mask = long_bags(scenes, BATCH, rng)
        given = torch.zeros((*mask.shape, EMBEDDING))
        given[mask] = nn.functional.dropout(features[chosen].float(), DROPOUT)
        loss = loss_of(network.heads(given, mask), labels, mask, plan)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
        rate.step()
        losses.append(loss.item())
        if step >= steps * 3 // 4:
            averaged += 1
            for total, weight in zip(sums, weights, strict=True):
                total += weight.detach()
        if step % 500 == 499:
            say(f"heads: step {step + 1} of {steps}, loss {np.mean(losses[-500:]):.4f}")
    with torch.no_grad():
        for total, weight in zip(sums, weights, strict=True):
            weight.copy_(total / max(1, averaged))
    network.eval()


def _features(network: Reference, scenes: Scenes) -> Tensor:
    """The features of all segments, float16 (N, 64)."""
    found = []
    with torch.inference_mode():
        for start in range(0, scenes.images.shape[0], 256):
            images = torch.from_numpy(scenes.images[start : start + 256].astype(np.float32)) / 127.5 - 1
            found.append(network.features(images).half())
    return torch.cat(found).clone()


def long_bags(scenes: Scenes, count: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.int64], Tensor, Tensor]:
    """The concatenated rows of ``count`` recordings' segments, the labels (B, S) int8 and the mask (B, S)."""
    truth, starts, counts = scenes.bags, scenes.starts, scenes.counts
    others = np.flatnonzero(~truth)
    parts = []
    for _ in range(count):
        scene = int(rng.integers(truth.size))
        rows = np.arange(starts[scene], starts[scene] + counts[scene])
        if rng.random() >= WHOLE and others.size:
            longest = int(rng.integers(4, MAX_SEGMENTS + 1))
            pieces = [rows]
            while sum(piece.size for piece in pieces) < longest:
                other = int(rng.choice(others))
                pieces.append(np.arange(starts[other], starts[other] + counts[other]))
            order = rng.permutation(len(pieces))
            rows = np.concatenate([pieces[index] for index in order])
        parts.append(rows[:MAX_SEGMENTS])
    lengths = np.array([part.size for part in parts])
    mask = torch.from_numpy(np.arange(lengths.max()) < lengths[:, None])
    labels = torch.full(mask.shape, UNCERTAIN, dtype=torch.int8)
    chosen = np.concatenate(parts)
    labels[mask] = torch.from_numpy(scenes.labels[chosen])
    return chosen, labels, mask
