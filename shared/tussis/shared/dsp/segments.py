"""Cut the waveform into overlapping segments of two seconds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tussis.shared.dsp.constants import HOP_SAMPLES, MAX_SEGMENTS, SAMPLE_RATE, SEGMENT_SAMPLES, SEGMENT_SECONDS
from tussis.shared.dsp.profiles import Profile, Tail
from tussis.shared.errors import NoSamples


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """The S segments of one bag of a recording, and the part of the recording that they cover."""

    padded: Tensor
    """float32 ((S - 1) * 8000 + 32000,): the waveform from the start of the first segment to the end of the last one,
    padded with zeros."""
    start_s: tuple[float, ...]
    """Start of each segment in the recording, seconds. The values are exact multiples of 0.5."""
    num_segments_total: int
    """Number of segments of the whole recording."""
    truncated: bool
    """Whether audio follows after the last segment of this bag. Audio that the profile's tail rule drops does not
    count."""
    duration_s: float
    """Length of the waveform, seconds."""

    @property
    def windows(self) -> Tensor:
        """The segments: float32 (S, 32000), 1 <= S <= 32. A view of ``padded``; neighbours overlap."""
        return self.padded.unfold(0, SEGMENT_SAMPLES, HOP_SAMPLES)

    @property
    def end_s(self) -> tuple[float, ...]:
        """End of each segment, seconds, including its padding."""
        return tuple(start + SEGMENT_SECONDS for start in self.start_s)

    @property
    def analyzed_s(self) -> float:
        """Length of the audio that the segments cover, from the start of the recording, seconds."""
        return min(self.duration_s, self.end_s[-1])


def cut_segments(wave: Tensor, profile: Profile, first: int = 0) -> Cut:
    """Cut a waveform into segments of 2.0 s, one every 0.5 s, at most 32 from the segment ``first`` on.

    Args:
        wave: float32 (m,) at 16 kHz; not changed. The result does not share its memory.
        profile: its tail rule applies to the end of the recording.
        first: index of the first segment, from 0.

    Raises:
        NoSamples: m is 0.
        IndexError: the waveform has no segment ``first``.
    """
    length = wave.shape[0]
    if length == 0:
        raise NoSamples
    total = segments_total(length, profile.tail)
    if not 0 <= first < total:
        raise IndexError(f"no segment {first}: the waveform has {total}")
    kept = min(total - first, MAX_SEGMENTS)
    begin = first * HOP_SAMPLES
    end = begin + (kept - 1) * HOP_SAMPLES + SEGMENT_SAMPLES
    padded = torch.zeros(end - begin, dtype=wave.dtype, device=wave.device)
    padded[: max(0, length - begin)] = wave[begin:end]
    return Cut(
        padded=padded,
        start_s=tuple(index * HOP_SAMPLES / SAMPLE_RATE for index in range(first, first + kept)),
        num_segments_total=total,
        truncated=total > first + kept and length > end,
        duration_s=length / SAMPLE_RATE,
    )


def segments_total(length: int, tail: Tail) -> int:
    """Number of segments in ``length`` samples (at least 1) at 16 kHz, before the limit of 32 is applied."""
    match tail:
        case Tail.PAD:  # every start before the end
            return -(-length // HOP_SAMPLES)
        case Tail.DROP:  # every start whose window is full, at least one
            return max(0, length - SEGMENT_SAMPLES) // HOP_SAMPLES + 1
