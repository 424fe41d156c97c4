"""Compare several graphs of one model: their outputs and their speed."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from tussis.shared.dsp.constants import FRAMES, IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD, MEL_BANDS
from tussis.shared.dsp.images import letterboxed
from tussis.worker.detector.detector import Detector, Scores
from tussis.worker.detector.tuning.mel_detector import MelDetector

#: The largest allowed difference between a logit and the original's.
TOLERANCE: Final = 1e-3

#: Segments of the timed recordings, which last 2 s and 4 s. More would delay a worker's first start.
_TIMED: Final = (4, 8)
_ROUNDS: Final = 3
#: The least processor time in seconds for a candidate in a round. The two recordings take a small model 0.01 s. In that
#: time, clock resolution and warm-up effects once made a graph that was 10 % slower appear faster.
_LEAST_S: Final = 0.15
#: If all ratios are outside this range after two rounds, a third round would not change the choice.
_SLOWER, _FASTER = 0.95, 1.05
_SEED: Final = 0


class Differs(Exception):
    """A candidate's outputs differ from the original's. The message has the output and the difference."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A graph of a model, loaded."""

    form: str
    detector: Detector | MelDetector
    data: bytes | None = None
    """The rewritten file; None: the original."""

    def score(self, mels: NDArray[np.float32], mask: NDArray[np.bool_], *, rounded: bool) -> Scores:
        """Scores of mel images (B, S, 160, 201)."""
        if isinstance(self.detector, MelDetector):
            return self.detector.score(mels, mask, rounded=rounded)
        return self.detector.score(spectrograms_of(mels, rounded=rounded), mask)


def spectrograms_of(mels: NDArray[np.float32], *, rounded: bool) -> NDArray[np.float32]:
    """Convert mel images to the contract's input: float32 (B, S, 160, 201) to (B, S, 3, 224, 224)."""
    batch, segments = mels.shape[:2]
    made = torch.empty(batch * segments, len(IMAGENET_MEAN), IMAGE_SIZE, IMAGE_SIZE)
    with torch.inference_mode():
        plain = letterboxed(torch.from_numpy(mels).flatten(0, 1))
        if rounded:
            plain = plain.to(torch.float16).to(torch.float32)
        for channel, (mean, deviation) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
            # ((p + 1) / 2 - mean) / deviation
            shift = torch.tensor((0.5 - mean) / deviation)
            torch.add(shift, plain, alpha=0.5 / deviation, out=made[:, channel])
    found: NDArray[np.float32] = made.view(batch, segments, *made.shape[1:]).numpy()
    return found


def answers(way: Candidate) -> list[Scores]:
    """A candidate's scores on a set of difficult images, some of them rounded to float16."""
    return [way.score(mels.astype(np.float32), mask, rounded=rounded) for mels, mask, rounded in _cases()]


def _cases() -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_], bool]]:
    noise = np.random.default_rng(_SEED)
    silence = np.full((1, 1, MEL_BANDS, FRAMES), -1.0)
    loud = np.ones((1, 1, MEL_BANDS, FRAMES))
    # rough: full range from pixel to pixel. smooth: similar to a recording, with a level for each band and each frame.
    rough = noise.uniform(-1, 1, size=(1, 1, MEL_BANDS, FRAMES))
    level = noise.uniform(-1, 0.5, size=(2, 3, MEL_BANDS, 1)) + noise.uniform(-0.5, 0.5, size=(2, 3, 1, FRAMES))
    smooth = np.clip(level + noise.normal(scale=0.1, size=(2, 3, MEL_BANDS, FRAMES)), -1, 1)
    one = np.ones((1, 1), dtype=np.bool_)
    yield silence, one, False
    yield loud, one, False
    yield rough, one, False
    yield rough, one, True
    yield np.concatenate([silence, smooth[:1, :1], loud], axis=1), np.ones((1, 3), dtype=np.bool_), False
    # A batch of two recordings, the second with masked padding.
    yield smooth, np.array([[True, True, True], [True, False, False]]), True


def compare(found: Sequence[Scores], expected: Sequence[Scores]) -> None:
    for one, other in zip(found, expected, strict=True):
        for name in ("bag_logit", "segment_logits"):
            gap = np.abs(getattr(one, name) - getattr(other, name))
            # Both are NaN where the mask is false, and only there.
            if not (np.isnan(getattr(other, name)) | (gap <= TOLERANCE)).all():
                raise Differs(f"{name} differs from the original's by {np.nanmax(gap):.2g}, at most {TOLERANCE:g}")


def ratios(original: Candidate, ways: Sequence[Candidate]) -> list[float]:
    """The original's processor time divided by each candidate's: medians over rounds, candidates in turn."""
    if not ways:
        return []
    threads = torch.get_num_threads()
    # torch's threads spin while they wait, and would add processor time while onnxruntime runs.
    torch.set_num_threads(1)
    try:
        return _ratios(original, ways)
    finally:
        torch.set_num_threads(threads)


def _ratios(original: Candidate, ways: Sequence[Candidate]) -> list[float]:
    noise = np.random.default_rng(_SEED)
    mels = [noise.uniform(-1, 1, size=(1, count, MEL_BANDS, FRAMES)).astype(np.float32) for count in _TIMED]
    rounds: list[list[float]] = []
    found: list[float] = []
    spent_s = _pass(original, mels, 1)
    if spent_s < _LEAST_S:  # most of it may be the cost of the first run
        *_, spent_s = [_pass(way, mels, 1) for way in (*ways, original)]
    passes = math.ceil(_LEAST_S / max(spent_s, 1e-6))
    while len(rounds) < _ROUNDS:
        rounds.append([_pass(way, mels, passes) for way in (original, *ways)])
        found = [statistics.median(spent[0] / spent[index] for spent in rounds) for index in range(1, len(ways) + 1)]
        if len(rounds) == 2 and all(ratio < _SLOWER or ratio > _FASTER for ratio in found):
            break
    return found


def _pass(way: Candidate, mels: Sequence[NDArray[np.float32]], times: int) -> float:
    """Processor seconds of this process. Wall time would include the effect of other processes."""
    began = time.process_time()
    for _ in range(times):
        for recording in mels:
            way.score(recording, np.ones(recording.shape[:2], dtype=np.bool_), rounded=False)
    return time.process_time() - began
