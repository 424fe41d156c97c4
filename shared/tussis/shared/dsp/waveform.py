"""Convert decoded samples to one waveform at 16 kHz: normalise, downmix and resample the whole recording."""

from __future__ import annotations

import torch
from torch import Tensor

from tussis.shared.dsp.profiles import Decoder, Normalise, Profile
from tussis.shared.dsp.resampling import resampled
from tussis.shared.errors import NonFiniteSamples, NoSamples


def unfiltered(samples: Tensor, rate_hz: int, profile: Profile) -> Tensor:
    """The whole recording as one channel at 16 kHz, before the high-pass.

    Args:
        samples: float32 (channels, n), full scale 1.0; not changed. For a profile with bit-depth normalisation and
            the decoder pydub (1, n), as that decoder returns them.
        rate_hz: sample rate of ``samples``, Hz.
        profile: selects the normalisation.

    Returns:
        float32 (m,), m = ceil(n * 16000 / rate_hz).

    Raises:
        NoSamples: n or the number of channels is 0.
        NonFiniteSamples: a sample is NaN or infinite.
        ValueError: the tensor has another shape or type, or was not decoded with the decoder of the profile.
    """
    if samples.ndim != 2 or samples.dtype != torch.float32:
        raise ValueError(f"samples must be float32 (channels, n), not {samples.dtype} {tuple(samples.shape)}")
    with torch.no_grad():
        return resampled(downmixed(normalised(samples, profile)), rate_hz)


def normalised(samples: Tensor, profile: Profile) -> Tensor:
    """Divide by the peak over all channels, or return samples that the decoder has scaled unchanged.

    float32 (channels, n) to the same shape. Raises the errors of :func:`unfiltered`.
    """
    if samples.numel() == 0:
        raise NoSamples
    low, high = torch.aminmax(samples)  # NaN anywhere makes both NaN
    peak = torch.maximum(-low, high)
    if not torch.isfinite(peak):
        raise NonFiniteSamples
    match profile.normalise:
        case Normalise.PEAK:
            # Divide; do not multiply by the reciprocal, which is infinite for a denormal peak.
            return samples / peak if peak > 0 else samples
        case Normalise.BIT_DEPTH:
            if profile.decoder is Decoder.PYDUB and (samples.shape[0] != 1 or peak > 2):
                raise ValueError(
                    f"profile {profile.name} needs one channel in [-2, 2] from its own decoder "
                    f"({profile.decoder}), not {samples.shape[0]} channel(s) up to {peak.item():g}"
                )
            return samples


def downmixed(samples: Tensor) -> Tensor:
    """Arithmetic mean over channels: float32 (channels, n) to (n,).

    After normalisation no sum can overflow. Before it, the sum of two channels near the limit of float32 would.
    """
    return samples.mean(dim=0)
