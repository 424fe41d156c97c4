"""Cough events as labels of Audacity and as selection tables of Raven: one file for each analysis with events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tussis.shared.dsp.constants import MEL_HIGH_HZ, MEL_LOW_HZ
from tussis.shared.text import printable, probability
from tussis.worker.export.folders import file_name, new_folder
from tussis.worker.local_files import written_whole

if TYPE_CHECKING:
    from tussis.shared.store.exports import EventToExtract

#: The columns of BirdNET-Analyzer (``birdnet_analyzer/analyze/utils.py``, RAVEN_TABLE_HEADER).
RAVEN_COLUMNS: Final = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Common Name",
    "Species Code",
    "Confidence",
    "Begin Path",
    "File Offset (s)",
)


class Written(NamedTuple):
    """How much was written."""

    files: int
    events: int


def write_audacity(folder: Path, events: Iterable[EventToExtract]) -> Written:
    """Write label files, with start, end and label in a line. Raises :class:`OutputUnwritable`."""
    return _write(folder, events, ".labels.txt", _audacity)


def write_raven(folder: Path, events: Iterable[EventToExtract]) -> Written:
    """Write selection tables. Raises :class:`OutputUnwritable`."""
    return _write(folder, events, ".selections.txt", _raven)


def _write(
    folder: Path,
    events: Iterable[EventToExtract],
    suffix: str,
    lines: Callable[[Sequence[EventToExtract]], Iterable[str]],
) -> Written:
    new_folder(folder)
    files = count = 0
    for analysis_id, group in groupby(events, attrgetter("analysis_id")):
        of_analysis = list(group)
        with written_whole(folder / file_name(of_analysis[0].key, str(analysis_id), suffix)) as stream:
            stream.write("".join(f"{line}\n" for line in lines(of_analysis)).encode())
        files += 1
        count += len(of_analysis)
    return Written(files, count)


def _audacity(events: Sequence[EventToExtract]) -> Iterable[str]:
    for event in events:
        yield f"{event.start_s:.6f}\t{event.end_s:.6f}\tcough event {probability(event.peak)}"


def _raven(events: Sequence[EventToExtract]) -> Iterable[str]:
    """The box of a selection is the band that the model sees, up to half the rate of the recording."""
    yield "\t".join(RAVEN_COLUMNS)
    for number, event in enumerate(events, start=1):
        cells = (
            str(number),
            "Spectrogram 1",
            "1",
            str(event.start_s),
            str(event.end_s),
            f"{MEL_LOW_HZ:g}",
            f"{min(MEL_HIGH_HZ, event.rate_hz / 2):g}",
            "Cough event",
            "cough",
            str(event.peak),
            printable(event.key),
            str(event.start_s),
        )
        yield "\t".join(cells)
