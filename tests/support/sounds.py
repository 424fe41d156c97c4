"""Recordings as bytes, for tests that need many small ones."""

from __future__ import annotations

import io

import soundfile as sf

from tests.support.recordings import cough_like


def wav(seconds: float, seed: int = 0, rate: int = 16_000) -> bytes:
    """Return a recording that sounds like coughs, as 16-bit WAV. Another ``seed`` gives other bytes."""
    out = io.BytesIO()
    sf.write(out, cough_like(seconds, rate, seed=seed).T, rate, format="WAV", subtype="PCM_16")
    return out.getvalue()
