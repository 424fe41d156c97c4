"""The training loop: three losses, weights averaged, a checkpoint after each epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.cache import COUGH, UNCERTAIN, Scenes
from training.network import EMBEDDING, Logits, Reference, stretched


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast to learn."""

    epochs: int = 16
    batch: int = 48
    """Scenes a step."""
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    average: float = 0.998
    """Share of the averaged weights that a step keeps."""
    smoothing: float = 0.02
    seed: int = 1


def fitted(
    scenes: Scenes, plan: Plan, checkpoint: Path, validate: Callable[[Reference], str], say: Callable[[str], None]
) -> Reference:
    """The averaged network after ``plan.epochs``; goes on from ``checkpoint`` when it exists.

    Args:
        scenes: to learn from.
        plan: seed and lengths.
        checkpoint: written after every epoch.
        validate: called with the averaged network after every epoch; its words go to ``say``.
        say: takes the progress, one line at a time.
    """
    torch.manual_seed(plan.seed)
    network, averaged = Reference(), Reference()
    averaged.load_state_dict(network.state_dict())
    optimiser = torch.optim.AdamW(_groups(network, plan.weight_decay), lr=plan.learning_rate)
    steps = -(-scenes.counts.shape[0] // plan.batch)
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        optimiser.load_state_dict(state["optimiser"])
        first = int(state["epoch"])
    bfloat16 = torch.cpu._is_avx512_bf16_supported()  # slower than float32 elsewhere
    for epoch in range(first, plan.epochs):
        rng = np.random.default_rng([plan.seed, epoch])
        torch.manual_seed(plan.seed * 1_000 + epoch)
        network.train()
        began, losses = time.monotonic(), []
        for step, chosen in enumerate(_batches(scenes, plan.batch, rng)):
            _set_rate(optimiser, plan, (epoch + step / steps) / plan.epochs)
            images, labels, mask = _batch(scenes, chosen, rng)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                logits = _logits(network, images, mask)
            loss = _loss(logits, labels, mask, plan.smoothing)
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            _average(averaged, network, min(plan.average, (1 + epoch * steps + step) / (10 + epoch * steps + step)))
            losses.append(loss.item())
            if step % 50 == 49:
                spent = time.monotonic() - began
                say(f"epoch {epoch + 1}: step {step + 1} of {steps}, loss {np.mean(losses[-50:]):.4f}, {spent:.0f} s")
        state = {"network": network.state_dict(), "averaged": averaged.state_dict(), "epoch": epoch + 1}
        partial = checkpoint.with_suffix(".partial")
        torch.save({**state, "optimiser": optimiser.state_dict()}, partial)
        partial.replace(checkpoint)
        averaged.eval()
        spent = time.monotonic() - began
        say(f"epoch {epoch + 1} of {plan.epochs}: loss {np.mean(losses):.4f}, {spent:.0f} s; {validate(averaged)}")
    return averaged.eval()


def _batches(scenes: Scenes, size: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    order = rng.permutation(scenes.counts.shape[0])
    for start in range(0, order.shape[0], size):
        yield np.sort(order[start : start + size])


def _batch(scenes: Scenes, chosen: npt.NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Images (N, 160, 201), labels (B, S) int8 and mask (B, S) of some scenes."""
    counts = scenes.counts[chosen]
    starts = scenes.starts[chosen]
    rows = np.concatenate([np.arange(start, start + count) for start, count in zip(starts, counts, strict=True)])
    images = torch.from_numpy(scenes.images[rows]).float() / 127.5 - 1
    mask = torch.from_numpy(np.arange(counts.max()) < counts[:, None])
    labels = torch.full(mask.shape, UNCERTAIN, dtype=torch.int8)
    labels[mask] = torch.from_numpy(scenes.labels[rows])
    return _varied(images, counts, rng), labels, mask


def _varied(images: Tensor, counts: npt.NDArray[np.int64], rng: np.random.Generator) -> Tensor:
    """Images moved a little in level and pitch, scene by scene, and with bars blanked."""
    at = 0
    for count in counts:
        part = images[at : at + count]
        at += int(count)
        # The peak sets the level, so a click beside the cough moves it: 2 / 80 a decibel.
        part += float(rng.normal(0, 4)) / 40
        if rng.random() < 0.4:
            part[:] = part.roll(int(rng.integers(-5, 6)), dims=1)
        if rng.random() < 0.3:
            row, rows = int(rng.integers(0, 150)), int(rng.integers(2, 20))
            part[:, row : row + rows] = -1
        if rng.random() < 0.15:
            # Blanked frames could hide the cough that the label speaks of: only short bars.
            frame, frames = int(rng.integers(0, 190)), int(rng.integers(2, 12))
            part[:, :, frame : frame + frames] = -1
    return images.clamp_(-1, 1)


def _logits(network: Reference, images: Tensor, mask: Tensor) -> Logits:
    found = network.features(stretched(images)).float()
    features = torch.zeros((*mask.shape, EMBEDDING))
    features[mask] = found
    return network.heads(features, mask)


def _loss(logits: Logits, labels: Tensor, mask: Tensor, smoothing: float) -> Tensor:
    """Recording, loudest segment, and every segment whose label is certain."""
    bags = (labels == COUGH).any(dim=1).float()
    targets = bags * (1 - 2 * smoothing) + smoothing
    entropy = nn.functional.binary_cross_entropy_with_logits
    peak = logits.segments.masked_fill(~mask, -30.0).amax(dim=1)
    known = labels != UNCERTAIN
    segments = labels[known].float() * (1 - 2 * smoothing) + smoothing
    return (
        entropy(logits.bag, targets)
        + 0.5 * entropy(peak, targets)
        + entropy(logits.segments[known], segments, pos_weight=torch.tensor(1.5))
    )


def _groups(network: Reference, decay: float) -> list[dict[str, object]]:
    heavy = [weight for weight in network.parameters() if weight.ndim > 1]
    light = [weight for weight in network.parameters() if weight.ndim <= 1]
    return [{"params": heavy, "weight_decay": decay}, {"params": light, "weight_decay": 0.0}]


def _set_rate(optimiser: torch.optim.Optimizer, plan: Plan, progress: float) -> None:
    warm = min(1.0, progress * plan.epochs / 0.5)
    rate = plan.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
    for group in optimiser.param_groups:
        group["lr"] = rate


def _average(averaged: Reference, network: Reference, keep: float) -> None:
    with torch.no_grad():
        for old, new in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
            if old.is_floating_point():
                old.lerp_(new, 1 - keep)
            else:
                old.copy_(new)
