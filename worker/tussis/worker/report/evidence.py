"""The data of a report about one analysis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tussis.shared.events import CoughEvent
from tussis.shared.store.records import Analysis, Segment


@dataclass(frozen=True, slots=True)
class Sound:
    """The pictures of the analysed part of a recording, and the recording as WAV."""

    span_s: float
    """From the start of the recording to the end of the last segment, seconds."""
    duration_s: float
    """Length of the whole recording, seconds."""
    envelope: Sequence[tuple[float, float]]
    """The lowest and the highest sample of each column."""
    envelope_column_s: float
    """Seconds in a column of the waveform."""
    mel_png: bytes
    """The mel images as PNG, low frequencies at the bottom."""
    mel_column_s: float
    """Seconds in a column of the picture."""
    mel_reduced: bool
    """Whether each column is the mean of several columns of the images."""
    wav: bytes | None
    """The whole recording, one channel at 16 kHz in 16 bits. None if it is not embedded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """One analysis, and all that the report shows about it."""

    analysis: Analysis
    segments: Sequence[Segment]
    events: Sequence[CoughEvent]
    others: Sequence[Analysis]
    """Other analyses of the same key, newest first."""
    sound: Sound | None
    no_sound: str
    """Why there is no sound; empty if there is."""
    no_player: str
    """Why the recording is not embedded; empty if it is."""
    made_at: datetime
    version: str
    """Of Tussis."""

    @property
    def span_s(self) -> float:
        """End of the time axis: of the last segment, or of the sound."""
        ends = [segment.end_s for segment in self.segments[-1:]]
        return max([*ends, self.sound.span_s if self.sound else 0.0])
