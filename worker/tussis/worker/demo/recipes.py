"""The synthetic recordings of the demo: one line each, twelve with coughs and twelve without."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tussis.worker.demo import sounds
from tussis.worker.demo.encoding import Format

#: The seed of the whole set. If the sounds change, the demo's folder needs new recordings under the same names.
SEED: Final = 2026
#: The largest absolute sample of a recording, below 1 because lossy codecs overshoot a little.
_PEAK: Final = 0.8
#: The right channel of a stereo recording is the left one, delayed and weaker.
_RIGHT_DELAY_S: Final = 0.004
_RIGHT_GAIN: Final = 0.5


@dataclass(frozen=True)
class Recipe:
    """One recording. ``level_db`` and ``bed_db``: peaks of the sound and of the noise below it, in dB of full scale."""

    name: str
    duration_s: float
    rate_hz: int
    channels: int
    format: Format
    coughs: int = 0
    first_s: float = 0.2
    background: sounds.Sound | None = None
    level_db: float = -2.0
    bed: sounds.Sound = sounds.room
    bed_db: float = -50.0
    number: int = 0

    @property
    def file_name(self) -> str:
        """``NN-NAME.SUFFIX``."""
        return f"{self.number:02d}-{self.name}{self.format.suffix}"

    def samples(self) -> NDArray[np.float32]:
        """The samples: float32 (channels, n) at ``rate_hz``, within [-1, 1]. Every call returns the same samples."""
        rng = np.random.default_rng([SEED, self.number])
        count = int(self.duration_s * self.rate_hz)
        if self.background is not None:
            sound = self.background(rng, count, self.rate_hz)
        else:
            sound = sounds.coughs(rng, count, self.rate_hz, self.coughs, self.first_s)
        left = _gain(self.level_db) * sound + _gain(self.bed_db) * self.bed(rng, count, self.rate_hz)
        left *= min(1.0, _PEAK / float(np.abs(left).max()))
        channels = [left]
        if self.channels == 2:
            delay = int(_RIGHT_DELAY_S * self.rate_hz)
            channels.append(_RIGHT_GAIN * np.concatenate([np.zeros(delay), left[: count - delay]]))
        return np.stack(channels).astype(np.float32)


def recipes(count: int) -> tuple[Recipe, ...]:
    """``count`` recipes, numbered from 1. After 24 different recipes they repeat with other seeds."""
    return tuple(replace(_RECIPES[index % len(_RECIPES)], number=index + 1) for index in range(count))


def _gain(db: float) -> float:
    return float(10 ** (db / 20))


_RECIPES: Final = (
    Recipe("cough-phone", 0.6, 8_000, 1, Format.WAV_16, coughs=1, first_s=0.1),
    Recipe("fan", 5.0, 44_100, 1, Format.WAV_16, background=sounds.fan, level_db=-12),
    Recipe("two-coughs-phone", 2.4, 8_000, 2, Format.MP3, coughs=2),
    Recipe("rain", 8.0, 48_000, 1, Format.OPUS, background=sounds.rain, level_db=-10),
    Recipe("three-coughs-chat", 3.0, 48_000, 1, Format.OPUS, coughs=3),
    Recipe("keyboard", 4.0, 44_100, 1, Format.VORBIS, background=sounds.keyboard, level_db=-8),
    Recipe("cough-iphone", 2.0, 44_100, 2, Format.M4A, coughs=1, first_s=0.6),
    Recipe("speech", 5.0, 16_000, 1, Format.M4A, background=sounds.speech),
    Recipe("two-coughs-browser", 4.0, 48_000, 1, Format.WEBM, coughs=2, first_s=1.2),
    Recipe("siren", 10.0, 48_000, 2, Format.WEBM, background=sounds.siren),
    Recipe("five-coughs-in-20-s", 20.0, 16_000, 1, Format.FLAC, coughs=5, first_s=3.0),
    Recipe("crowd", 20.0, 24_000, 1, Format.OPUS, background=sounds.babble),
    Recipe("two-coughs-with-fan", 5.0, 44_100, 1, Format.VORBIS, coughs=2, first_s=1.5, bed=sounds.fan, bed_db=-20),
    Recipe("melody", 6.0, 22_050, 1, Format.MP3, background=sounds.melody),
    Recipe("cough-in-crowd", 6.0, 48_000, 2, Format.WEBM, coughs=1, first_s=3.0, bed=sounds.babble, bed_db=-14),
    Recipe("dial-tone", 1.0, 8_000, 1, Format.WAV_ULAW, background=sounds.dial, level_db=-9),
    Recipe("cough-studio", 2.5, 48_000, 2, Format.WAV_24, coughs=1, first_s=0.8),
    Recipe("click", 0.3, 8_000, 1, Format.WAV_16, background=sounds.click),
    Recipe("cough-8-bit", 1.5, 8_000, 1, Format.WAV_8, coughs=1),
    Recipe("knocking", 2.0, 44_100, 2, Format.FLAC, background=sounds.knocks),
    Recipe("late-coughs", 10.0, 22_050, 1, Format.MP3, coughs=2, first_s=8.0),
    Recipe("engine", 12.0, 11_025, 1, Format.VORBIS, background=sounds.engine),
    Recipe("quiet-cough", 3.0, 32_000, 1, Format.WAV_FLOAT, coughs=1, first_s=1.0, level_db=-32, bed_db=-66),
    Recipe("quiet-room", 3.0, 16_000, 1, Format.WAV_16, background=sounds.room, level_db=-40),
)  # fmt: skip
