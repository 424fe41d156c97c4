"""Sentences and numbers of a report."""

from __future__ import annotations

from datetime import datetime
from typing import Final

#: Warning about the quality of a recording -> what it means. ``docs/quality.md`` has the definitions.
WARNINGS: Final = {
    "clipped": "The recording was too loud for the recorder: samples were cut off at full scale.",
    "silent": "The recording has no sound. Do not count it as “no cough”.",
    "very_quiet": "The recording is very quiet, and the noise of the recorder is amplified with the sound.",
    "one_channel_silent": "One channel is silent. The answer comes from the other channels.",
    "channels_cancel": "The channels cancel each other, so their mean has lost the sound. Do not use the answer.",
    "dc_offset": "The recorder adds a constant to the samples. The answer is usable.",
    "truncated": "The file ended early, or a part of it could not be decoded. Coughs in that part are not counted.",
    "mostly_padding": "The recording is shorter than 1 s: more than half of each segment is silence that Tussis added.",
}


def warning(name: str) -> str:
    """A warning as a sentence. A warning of another version of Tussis is shown by its name."""
    return WARNINGS.get(name, f"{name} (see the documentation of the version of Tussis that stored it)")


def moment(time: datetime | None) -> str | None:
    """A time in UTC."""
    return None if time is None else f"{time:%Y-%m-%d %H:%M:%S} UTC"


def seconds(value: float | None) -> str | None:
    """A number of seconds, and from a minute on hours, minutes and seconds too."""
    if value is None:
        return None
    return f"{value:.1f} s" if value < 60 else f"{value:,.1f} s ({clock(value)})"


def clock(value: float) -> str:
    """1:05, or 2:00:00 from an hour on."""
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def counted(number: int, one: str, many: str | None = None) -> str:
    """1 event, 2 events."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
