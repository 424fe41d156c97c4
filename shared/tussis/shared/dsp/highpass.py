"""The second-order high-pass filter of torchaudio."""

from __future__ import annotations

import math
from functools import cache
from typing import Final, cast

import torch
from torch import Tensor
from torchaudio.functional import lfilter

from tussis.shared.dsp.constants import SAMPLE_RATE

Q: Final = 0.707
"""The default of ``highpass_biquad``."""


def highpassed(wave: Tensor, corner_hz: float) -> Tensor:
    """``torchaudio.functional.highpass_biquad`` at 16 kHz: float32 (m,) to (m,), clamped to [-1, 1].

    torchaudio needs about seventeen times the input's memory: at most 20 MB for the samples that segments cover.
    """
    feedback, feedforward = _coefficients(corner_hz)
    return cast(Tensor, lfilter(wave, feedback, feedforward))  # highpass_biquad with cached coefficients


@cache
@torch.inference_mode(False)  # the cached tensors are also used outside inference mode
def _coefficients(corner_hz: float) -> tuple[Tensor, Tensor]:
    """Feedback (1, a1, a2) and feed-forward (b0, b1, b2), float32, computed with the steps of ``highpass_biquad``."""
    angle = 2 * math.pi * torch.tensor(corner_hz) / SAMPLE_RATE
    alpha = torch.sin(angle) / 2.0 / torch.tensor(Q)
    cosine = torch.cos(angle)
    edge = (1 + cosine) / 2
    scale = 1 + alpha
    feedback = torch.stack([scale, -2 * cosine, 1 - alpha]) / scale
    feedforward = torch.stack([edge, -1 - cosine, edge]) / scale
    return feedback, feedforward
