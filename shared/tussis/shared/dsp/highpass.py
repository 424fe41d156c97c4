"""torchaudio's second-order high-pass."""

from __future__ import annotations

import math
from functools import cache
from typing import Final, cast

import torch
from torch import Tensor
from torchaudio.functional import lfilter

from tussis.shared.dsp.constants import SAMPLE_RATE

Q: Final = 0.707
"""``highpass_biquad``'s default."""


def highpassed(wave: Tensor, corner_hz: float) -> Tensor:
    """``torchaudio.functional.highpass_biquad`` at 16 kHz: float32 (m,) to (m,), clamped to [-1, 1].

    torchaudio takes some seventeen times the input's memory: 20 MB for what a recording's segments cover at most.
    """
    feedback, feedforward = _coefficients(corner_hz)
    return cast(Tensor, lfilter(wave, feedback, feedforward))  # highpass_biquad, but for the coefficients


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
