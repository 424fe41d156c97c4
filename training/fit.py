"""The training loop: three losses, weights averaged, a checkpoint after each epoch."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkContext
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.cache import COUGH, UNCERTAIN, Scenes
from training.network import EMBEDDING, Logits, Reference

#: Segments of a scene that a step sees, other ones in every epoch: neighbours share three quarters of their audio.
MOST_SEGMENTS: Final = 6


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast to learn."""

    epochs: int = 16
    batch: int = 48
    """Scenes a step."""
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    average: float = 0.995
    """Share of the averaged weights that a step keeps."""
    smoothing: float = 0.02
    seed: int = 1


def fitted(
    scenes: Scenes,
    plan: Plan,
    processes: int,
    checkpoint: Path,
    validate: Callable[[Reference], str],
    say: Callable[[str], None],
) -> Reference:
    """The averaged network after ``plan.epochs``; goes on from ``checkpoint`` when it exists.

    Args:
        scenes: to learn from.
        plan: seed and lengths.
        processes: that share every step, one thread each. They meet once a step: on a busy machine threads, which
            meet in every operation, were several times slower.
        checkpoint: written after every epoch.
        validate: called with the averaged network after every epoch; its words go to ``say``.
        say: takes the progress, one line at a time.
    """
    context = multiprocessing.get_context("fork")  # the scenes are inherited, not copied
    gradients = Gradients(processes, context)
    ranks = range(1, processes)
    helpers = [
        context.Process(target=_learn, args=(scenes, plan, gradients, rank, checkpoint, None, None), daemon=True)
        for rank in ranks
    ]
    for helper in helpers:
        helper.start()
    try:
        averaged = _learn(scenes, plan, gradients, 0, checkpoint, validate, say)
    finally:
        for helper in helpers:
            helper.terminate()
            helper.join()
    return averaged


class Gradients:
    """Where the processes of a training meet: each leaves its gradients, and takes everyone's mean."""

    #: Seconds after which a process that does not come is taken for dead.
    PATIENCE_S = 1_800

    def __init__(self, processes: int, context: ForkContext) -> None:
        size = sum(weight.numel() for weight in Reference().parameters())
        self.slots = [np.frombuffer(context.RawArray("f", size), np.float32) for _ in range(processes)]
        self._barrier = context.Barrier(processes)

    def shared(self, network: Reference, rank: int) -> None:
        """Replace the gradients of ``network`` by the mean over the processes."""
        if len(self.slots) == 1:
            return
        grads = [weight.grad for weight in network.parameters() if weight.grad is not None]
        self.slots[rank][:] = torch.cat([grad.flatten() for grad in grads]).numpy()
        self._barrier.wait(self.PATIENCE_S)
        mean = torch.from_numpy(np.mean(self.slots, axis=0))
        self._barrier.wait(self.PATIENCE_S)  # no slot is written before all have read
        at = 0
        for grad in grads:
            part = mean[at : at + grad.numel()]
            at += grad.numel()
            grad.copy_(part.view(grad.shape))


def _learn(
    scenes: Scenes,
    plan: Plan,
    gradients: Gradients,
    rank: int,
    checkpoint: Path,
    validate: Callable[[Reference], str] | None,
    say: Callable[[str], None] | None,
) -> Reference:
    """One process's training; rank 0 averages the weights, keeps the checkpoint and speaks."""
    torch.set_num_threads(1)
    torch.manual_seed(plan.seed)
    network, averaged = Reference(), Reference()
    for weight in network.parameters():
        if weight.ndim == 4:  # a third faster on a CPU than the default order
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    averaged.load_state_dict(network.state_dict())
    optimiser = torch.optim.AdamW(_groups(network, plan.weight_decay), lr=plan.learning_rate)
    processes = len(gradients.slots)
    steps = scenes.counts.shape[0] // plan.batch or 1
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        optimiser.load_state_dict(state["optimiser"])
        first = int(state["epoch"])
    bfloat16 = torch.cpu._is_avx512_bf16_supported()  # slower than float32 elsewhere
    for epoch in range(first, plan.epochs):
        order = np.random.default_rng([plan.seed, epoch]).permutation(scenes.counts.shape[0])
        rng = np.random.default_rng([plan.seed, epoch, rank])
        torch.manual_seed(plan.seed * 10_000 + epoch * 100 + rank)
        network.train()
        began, losses = time.monotonic(), []
        for step in range(steps):
            _set_rate(optimiser, plan, (epoch + step / steps) / plan.epochs)
            chosen = order[step * plan.batch : (step + 1) * plan.batch][rank::processes]
            images, labels, mask = _batch(scenes, chosen, rng)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                logits = _logits(network, images, mask)
            loss = _loss(logits, labels, mask, plan.smoothing)
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            gradients.shared(network, rank)
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            losses.append(loss.item())
            if rank == 0:
                done = epoch * steps + step
                _average(averaged, network, min(plan.average, (1 + done) / (10 + done)))
            if say is not None and step % 25 == 24:
                spent = time.monotonic() - began
                say(f"epoch {epoch + 1}: step {step + 1} of {steps}, loss {np.mean(losses[-25:]):.4f}, {spent:.0f} s")
        if rank == 0:
            state = {"network": network.state_dict(), "averaged": averaged.state_dict(), "epoch": epoch + 1}
            partial = checkpoint.with_suffix(".partial")
            torch.save({**state, "optimiser": optimiser.state_dict()}, partial)
            partial.replace(checkpoint)
            averaged.eval()
        if say is not None and validate is not None:
            spent = time.monotonic() - began
            say(f"epoch {epoch + 1} of {plan.epochs}: loss {np.mean(losses):.4f}, {spent:.0f} s; {validate(averaged)}")
    return averaged.eval()


def _batch(scenes: Scenes, chosen: npt.NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Images (N, 178, 224), labels (B, S) int8 and mask (B, S) of some scenes."""
    spans = zip(scenes.starts[chosen], scenes.counts[chosen], strict=True)
    parts = [_some(scenes.labels, int(start), int(count), rng) for start, count in spans]
    counts = np.array([part.shape[0] for part in parts])
    rows = np.concatenate(parts)
    images = torch.from_numpy(scenes.images[rows]).float()
    mask = torch.from_numpy(np.arange(counts.max()) < counts[:, None])
    labels = torch.full(mask.shape, UNCERTAIN, dtype=torch.int8)
    labels[mask] = torch.from_numpy(scenes.labels[rows])
    return _varied(images, counts, rng), labels, mask


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
        # The peak sets the level, so a click beside the cough moves it: 2 / 80 a decibel.
        part.mul_(1 / 127.5).add_(float(rng.normal(0, 4)) / 40 - 1)
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


def _logits(network: Reference, images: Tensor, mask: Tensor) -> Logits:
    found = network.features(images).float()
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
