"""Recordings and small audits for the tests of the audit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.support.encoding import interleaved, wav
from tests.support.recordings import Floats, Integers, quantised
from tussis.shared.coverage import Coverage
from tussis.shared.dsp.profiles import DOCUMENTED, LEGACY, TRAINING, Profile
from tussis.worker.audio.limits import Limits
from tussis.worker.audit.answers import Distance, VariantAnswer
from tussis.worker.audit.audit import Audit, AuditedRecording, Plan, run
from tussis.worker.detector.detector import Detector

RATE = 16_000


def bursts(seconds: float, *, peak: float = 1.0, offset: float = 0.0, rumble: float = 0.0, seed: int = 0) -> Floats:
    """Bursts of noise like coughs, with this peak before ``offset`` and a 30 Hz tone are added: float32 (1, n)."""
    time = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).standard_normal(time.size) * np.exp(-8 * (time % 0.9))
    sound = noise / np.abs(noise).max() * peak + offset + rumble * np.sin(2 * np.pi * 30 * time)
    samples: Floats = sound[np.newaxis].astype(np.float32)
    return samples


def wav_of(samples: Floats, width: int = 2, rate: int = RATE) -> bytes:
    """Samples (channels, n) in [-1, 1] as WAV with ``width`` bytes a sample."""
    return wav_of_integers(quantised(samples, width), width, rate)


def wav_of_integers(integers: Integers, width: int, rate: int = RATE) -> bytes:
    """Integers (channels, n) as WAV with ``width`` bytes a sample; 8 bits are unsigned."""
    return wav(interleaved(integers), channels=integers.shape[0], rate_hz=rate, bits=8 * width)


def plan_of(model: Path, *others: Profile, coverage: Coverage = Coverage.HEAD, above: float = 0.02) -> Plan:
    """An audit of a model whose profile is ``documented``; by default with both other profiles."""
    detector = Detector.load(model, intra_op_threads=1)
    return Plan(detector, DOCUMENTED, others or (TRAINING, LEGACY), coverage, coverage, Limits(), above)


def audited(plan: Plan, recordings: dict[str, bytes]) -> Audit:
    """The audit of recordings in memory."""
    return run(plan, recordings, recordings.__getitem__)


def an_answer(*bags: float, segments: Sequence[float] = (0.5,), duration_s: float = 2.0) -> VariantAnswer:
    """An answer with these bag probabilities."""
    return VariantAnswer(Coverage.HEAD, bags, tuple(segments), duration_s, Distance(0.0, 0.0, len(segments)))


def a_recording(source: str, own: VariantAnswer, **others: VariantAnswer) -> AuditedRecording:
    """An audited recording without attributions."""
    return AuditedRecording(source, own, dict(others), {}, (), {"documented": own, **others})
