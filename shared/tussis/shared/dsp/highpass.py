"""torchaudio's second-order high-pass over a whole recording, in bounded memory."""

from __future__ import annotations

import math
from functools import cache
from typing import Final, cast

import torch
from torch import Tensor
from torchaudio.functional import lfilter

from tussis.shared.dsp.constants import SAMPLE_RATE
from tussis.shared.dsp.spans import spans

#: Least samples in one of several calls of torchaudio, a minute: each takes some seventeen times its input's memory.
BLOCK_SAMPLES: Final = 60 * SAMPLE_RATE

Q: Final = 0.707
"""``highpass_biquad``'s default."""


def highpassed(wave: Tensor, corner_hz: float) -> Tensor:
    """``torchaudio.functional.highpass_biquad`` at 16 kHz: float32 (m,) to (m,), clamped to [-1, 1].

    Recordings of two minutes and more are filtered in blocks that hand the filter's state on. Starting a block
    anew some time earlier would not do: in float32 the filter never forgets its start entirely, and 2e-5 remain.
    """
    blocks = spans(wave.shape[0], BLOCK_SAMPLES)
    feedback, feedforward = _coefficients(corner_hz)
    if len(blocks) == 1:
        return cast(Tensor, lfilter(wave, feedback, feedforward))  # highpass_biquad, but for the coefficients
    identity = torch.tensor([1.0, 0.0, 0.0])
    filtered = torch.empty_like(wave)
    older, last = torch.zeros(()), torch.zeros(())  # the two outputs before the block, not clamped
    for first, end in blocks:
        before = min(first, 2)
        driven = lfilter(wave[first - before : end], identity, feedforward, clamp=False)[before:]
        # What the outputs before the block add to its first two, in the order of torchaudio's own loop.
        driven[0] = driven[0] - feedback[2] * older - feedback[1] * last
        driven[1] = driven[1] - feedback[2] * last
        block = lfilter(driven, feedback, identity, clamp=False)
        older, last = block[-2], block[-1]
        filtered[first:end] = block.clamp(-1.0, 1.0)
    return filtered


@cache
@torch.inference_mode(False)  # kept, so they must serve callers outside that mode too
def _coefficients(corner_hz: float) -> tuple[Tensor, Tensor]:
    """Feedback (1, a1, a2) and feed-forward (b0, b1, b2), float32, by ``highpass_biquad``'s own steps."""
    angle = 2 * math.pi * torch.tensor(corner_hz) / SAMPLE_RATE
    alpha = torch.sin(angle) / 2.0 / torch.tensor(Q)
    cosine = torch.cos(angle)
    edge = (1 + cosine) / 2
    scale = 1 + alpha
    feedback = torch.stack([scale, -2 * cosine, 1 - alpha]) / scale
    feedforward = torch.stack([edge, -1 - cosine, edge]) / scale
    return feedback, feedforward
