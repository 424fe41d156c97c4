"""The scores of the bags of a recording, one bag after the other."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tussis.shared.coverage import Coverage
from tussis.shared.dsp.constants import HOP_SECONDS, MAX_SEGMENTS, SAMPLE_RATE, SEGMENT_SECONDS
from tussis.shared.dsp.recording import Waveform
from tussis.shared.store.records import BagProgress, BagScores, SegmentScores
from tussis.worker.detector.detector import Scores


@dataclass(slots=True)
class ScoredBags:
    """The scores of the finished bags of a recording, from its start."""

    segments_total: int
    """Number of segments of all bags that are to be scored."""
    bag_probability: list[float] = field(default_factory=list)
    bag_logit: list[float] = field(default_factory=list)
    probability: list[float] = field(default_factory=list)
    """Of each segment of the finished bags."""
    logit: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, waveform: Waveform, coverage: Coverage) -> ScoredBags:
        """No scores yet, for the first bag of a recording (coverage ``head``) or for all of them."""
        total = waveform.num_segments_total
        return cls(min(total, MAX_SEGMENTS) if coverage is Coverage.HEAD else total)

    def __len__(self) -> int:
        return len(self.bag_probability)

    @property
    def complete(self) -> bool:
        """Whether all bags are scored."""
        return len(self) == self.num_bags

    @property
    def num_bags(self) -> int:
        """Number of all bags."""
        return -(-self.segments_total // MAX_SEGMENTS)

    def add(self, scores: Scores) -> None:
        """Append the scores of the next bag, (1, S)."""
        self.bag_probability.append(float(scores.bag_probability[0]))
        self.bag_logit.append(float(scores.bag_logit[0]))
        self.probability += scores.segment_probabilities[0].tolist()
        self.logit += scores.segment_logits[0].tolist()

    @property
    def highest(self) -> int:
        """Index of the finished bag with the highest probability; of equal ones the first."""
        return max(range(len(self)), key=self.bag_probability.__getitem__)

    def starts(self) -> list[float]:
        """Start of each scored segment, seconds."""
        return [index * HOP_SECONDS for index in range(len(self.probability))]

    def segment_scores(self) -> SegmentScores:
        """The segments as the store takes them."""
        starts = self.starts()
        return SegmentScores(
            start_s=starts,
            end_s=[start + SEGMENT_SECONDS for start in starts],
            probability=self.probability,
            logit=self.logit,
        )

    def bag_scores(self, duration_s: float) -> BagScores:
        """The bags as the store takes them. ``duration_s``: seconds of audio."""
        sizes = [min(MAX_SEGMENTS, self.segments_total - first * MAX_SEGMENTS) for first in range(len(self))]
        starts = [index * MAX_SEGMENTS * HOP_SECONDS for index in range(len(self))]
        ends = [
            min(duration_s, start + (size - 1) * HOP_SECONDS + SEGMENT_SECONDS)
            for start, size in zip(starts, sizes, strict=True)
        ]
        return BagScores(starts, ends, self.bag_probability, self.bag_logit, sizes)

    def to_progress(self) -> BagProgress:
        """The finished bags as the store keeps them. The model computes in float32, so nothing is lost."""
        scores = np.array([*self.bag_probability, *self.bag_logit, *self.probability, *self.logit], "<f4")
        return BagProgress(bags_total=self.num_bags, bags_done=len(self), scores=scores.tobytes())

    def resume(self, saved: BagProgress | None) -> None:
        """Take the finished bags of an earlier attempt, unless what was saved does not fit this recording."""
        if saved is None or saved.bags_total != self.num_bags:
            return
        done, segments = saved.bags_done, min(saved.bags_done * MAX_SEGMENTS, self.segments_total)
        numbers = np.frombuffer(saved.scores, "<f4").astype(float).tolist()
        if len(numbers) != 2 * (done + segments):
            return
        self.bag_probability, numbers = numbers[:done], numbers[done:]
        self.bag_logit, numbers = numbers[:done], numbers[done:]
        self.probability, self.logit = numbers[:segments], numbers[segments:]


def analyzed_s(scored: ScoredBags, waveform: Waveform) -> float:
    """Seconds of audio that the scored segments cover, from the start of the recording."""
    return min(duration_s(waveform), (len(scored.probability) - 1) * HOP_SECONDS + SEGMENT_SECONDS)


def duration_s(waveform: Waveform) -> float:
    """Length of the waveform, seconds."""
    return waveform.samples.shape[0] / SAMPLE_RATE


def is_truncated(scored: ScoredBags, waveform: Waveform) -> bool:
    """Whether segments, and audio in them, follow after the last scored segment."""
    return waveform.num_segments_total > len(scored.probability) and duration_s(waveform) > analyzed_s(scored, waveform)
