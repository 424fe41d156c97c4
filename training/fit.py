"""The training loop: three losses, preference for difficult scenes, averaged weights, a checkpoint per epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training import batches
from training.cache import COUGH, UNCERTAIN, Scenes
from training.network import EMBEDDING, Logits, Reference
from training.processes import CONTEXT, set_up_process

#: Epochs between two validations.
VALIDATED: Final = 7


@dataclass(frozen=True, slots=True)
class Plan:
    """The parameters of the training."""

    epochs: int = 36
    """Each uses half of the scenes."""
    batch: int = 48
    """Scenes per step."""
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    average: float = 0.995
    """Share of the old value in the averaged weights after a step."""
    smoothing: float = 0.02
    forgiveness: float = 0.3
    """Reduces the loss of coughs with a very low output, because some "coughs" of the pack are speech or breath. 0 is
    cross entropy, 1 the mean absolute error."""
    seed: int = 1


def fit(
    load: Callable[[], Scenes],
    plan: Plan,
    processes: int,
    checkpoint: Path,
    validate: Callable[[Reference], str],
    say: Callable[[str], None],
) -> Reference:
    """Train for ``plan.epochs`` and return the averaged network. Resumes from ``checkpoint`` if it exists.

    Args:
        load: returns the training data. Every process calls it, and all share the memory-mapped images.
        plan: the parameters.
        processes: number of processes that share every step, one thread each. They synchronise once per step. Threads
            synchronise in every operation, and were several times slower on a busy machine.
        checkpoint: written after every epoch.
        validate: called with the averaged network after some epochs and the last. Its result is passed to ``say``.
        say: called with each line of progress.
    """
    scenes = load()
    gradients = Gradients(processes, scenes.counts.shape[0])
    helpers = [
        CONTEXT.Process(target=_help, args=(load, plan, gradients, rank, checkpoint), daemon=True)
        for rank in range(1, processes)
    ]
    for helper in helpers:
        helper.start()
    try:
        averaged = _learn(scenes, plan, gradients, 0, checkpoint, validate, say)
    finally:
        for helper in helpers:
            helper.kill()
            helper.join()
    return averaged


def _help(load: Callable[[], Scenes], plan: Plan, gradients: Gradients, rank: int, checkpoint: Path) -> None:
    set_up_process()
    _learn(load(), plan, gradients, rank, checkpoint, None, None)


#: The initial mistake of a scene: larger than any real one, so that scenes that were not used yet come first.
UNSEEN: Final = 1e6


class Gradients:
    """Shares the gradients between the processes of a training, in shared memory. Each process gets their mean."""

    #: Timeout of the barrier in seconds. A process that does not arrive in this time is considered dead.
    PATIENCE_S = 1_800

    def __init__(self, processes: int, scenes: int) -> None:
        size = sum(weight.numel() for weight in Reference().parameters())
        self._slots = [CONTEXT.RawArray("f", size) for _ in range(processes)]
        self._mistakes = CONTEXT.RawArray("f", scenes)
        self.mistakes[:] = UNSEEN
        self._barrier = CONTEXT.Barrier(processes)

    @property
    def slots(self) -> list[npt.NDArray[np.float32]]:
        """The gradients of each process, (weights,)."""
        return [np.frombuffer(slot, np.float32) for slot in self._slots]

    @property
    def mistakes(self) -> npt.NDArray[np.float32]:
        """The mistake of each scene in its last step, (scenes,). Every process writes those of its own scenes."""
        return np.frombuffer(self._mistakes, np.float32)

    def meet(self) -> None:
        """Wait until every process has arrived."""
        self._barrier.wait(self.PATIENCE_S)

    def shared(self, network: Reference, rank: int) -> None:
        """Replace the gradients of ``network`` by the mean over the processes."""
        slots = self.slots
        if len(slots) == 1:
            return
        grads = [weight.grad for weight in network.parameters() if weight.grad is not None]
        slots[rank][:] = torch.cat([grad.flatten() for grad in grads]).numpy()
        self._barrier.wait(self.PATIENCE_S)
        mean = torch.from_numpy(np.mean(slots, axis=0))
        self._barrier.wait(self.PATIENCE_S)  # no slot is overwritten before all processes have read it
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
    """The training in one process. Rank 0 also averages the weights, writes the checkpoint and reports progress."""
    torch.manual_seed(plan.seed)
    network, averaged = Reference(), Reference()
    for weight in network.parameters():
        if weight.ndim == 4:  # a third faster on a CPU than the default order
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    averaged.load_state_dict(network.state_dict())
    optimiser = torch.optim.AdamW(_groups(network, plan.weight_decay), lr=plan.learning_rate)
    processes = len(gradients.slots)
    truth = scenes.bags
    others = np.flatnonzero(~truth)
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        optimiser.load_state_dict(state["optimiser"])
        gradients.mistakes[:] = state["mistakes"].numpy()
        first = int(state["epoch"])
    bfloat16 = torch.cpu._is_avx512_bf16_supported()  # slower than float32 elsewhere
    for epoch in range(first, plan.epochs):
        order = batches.order_of(truth, gradients.mistakes, np.random.default_rng([plan.seed, epoch]))
        gradients.meet()  # no process changes the mistakes before all have their order
        steps = order.shape[0] // plan.batch or 1
        rng = np.random.default_rng([plan.seed, epoch, rank])
        torch.manual_seed(plan.seed * 10_000 + epoch * 100 + rank)
        network.train()
        began, losses = time.monotonic(), []
        for step in range(steps):
            _set_rate(optimiser, plan, (epoch + step / steps) / plan.epochs)
            chosen = order[step * plan.batch : (step + 1) * plan.batch][rank::processes]
            images, labels, mask = batches.batch(scenes, chosen, others, rng)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                logits = _logits(network, images, mask)
            loss = loss_of(logits, labels, mask, plan)
            gradients.mistakes[chosen] = np.where(truth[chosen], -1, 1) * logits.bag.detach().numpy()
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            gradients.shared(network, rank)
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            losses.append(loss.item())
            if rank == 0:
                done = epoch * steps + step  # all epochs have the same number of steps
                _average(averaged, network, min(plan.average, (1 + done) / (10 + done)))
            if say is not None and step % 25 == 24:
                spent = time.monotonic() - began
                say(f"epoch {epoch + 1}: step {step + 1} of {steps}, loss {np.mean(losses[-25:]):.4f}, {spent:.0f} s")
        if rank == 0:
            state = {"network": network.state_dict(), "averaged": averaged.state_dict(), "epoch": epoch + 1}
            state["mistakes"] = torch.from_numpy(gradients.mistakes.copy())
            partial = checkpoint.with_suffix(".partial")
            torch.save({**state, "optimiser": optimiser.state_dict()}, partial)
            partial.replace(checkpoint)
            averaged.eval()
        if say is not None and validate is not None:
            spent = time.monotonic() - began
            found = validate(averaged) if epoch % VALIDATED == VALIDATED - 1 or epoch + 1 == plan.epochs else ""
            say(f"epoch {epoch + 1} of {plan.epochs}: loss {np.mean(losses):.4f}, {spent:.0f} s {found}")
    return averaged.eval()


def _logits(network: Reference, images: Tensor, mask: Tensor) -> Logits:
    found = network.features(images).float()
    features = torch.zeros((*mask.shape, EMBEDDING))
    features[mask] = found
    return network.heads(features, mask)


def loss_of(logits: Logits, labels: Tensor, mask: Tensor, plan: Plan) -> Tensor:
    """The sum of the losses of the recording, the highest segment, and every segment with a certain label."""
    bags = (labels == COUGH).any(dim=1)
    peak = logits.segments.masked_fill(~mask, -30.0).amax(dim=1)
    known = labels != UNCERTAIN
    is_cough = labels[known] == COUGH
    segments = mistake(logits.segments[known], is_cough, plan) * torch.where(is_cough, 1.5, 1.0)
    return mistake(logits.bag, bags, plan).mean() + 0.5 * mistake(peak, bags, plan).mean() + segments.mean()


def mistake(logits: Tensor, truth: Tensor, plan: Plan) -> Tensor:
    """The loss of each logit: cross entropy for the label no cough, a robust loss (``forgiveness``) for cough."""
    missed = (1 - torch.exp(plan.forgiveness * nn.functional.logsigmoid(logits))) / plan.forgiveness
    alarm = nn.functional.binary_cross_entropy_with_logits(
        logits, torch.full_like(logits, plan.smoothing), reduction="none"
    )
    return torch.where(truth, missed, alarm)


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
