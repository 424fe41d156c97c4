"""The evidence: the audio around each cough event as a WAV file, with an index of all clips."""

from __future__ import annotations

import csv
import io
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import TYPE_CHECKING, Any, Final

from tussis.shared.errors import (
    CorruptAudio,
    OperatorError,
    OutputUnwritable,
    StorageAccessDenied,
    StorageUnavailable,
    TussisError,
)
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.samples import Listener
from tussis.worker.export.clip_files import ClipFiles, ClipSpan
from tussis.worker.export.folders import file_name, new_folder
from tussis.worker.local_files import written_whole
from tussis.worker.pipeline.object_bytes import ObjectVersion
from tussis.worker.pipeline.objects import fetch

if TYPE_CHECKING:
    from tussis.shared.store.exports import EventToExtract

INDEX: Final = "index.csv"
"""Name of the index. It is written last, so a folder without it is not complete."""
INDEX_COLUMNS: Final = ("uri", "analysis_id", "event_index", "start_s", "end_s", "peak", "clip_start_s", "clip")

#: Recordings in sequence for which the object store does not answer, until it counts as unavailable for all.
_MAX_UNANSWERED: Final = 3


@dataclass(frozen=True)
class Extraction:
    """How clips are made. ``padding_s`` is the time before and after an event, in seconds."""

    s3: Any
    limits: Limits
    padding_s: float
    download_timeout_s: float
    verify_md5: bool


@dataclass(frozen=True)
class Clips:
    """The number of clips, and of the recordings that have some and that have none because of an error."""

    clips: int
    recordings: int
    failed: int


def write_clips(
    folder: Path, events: Iterable[EventToExtract], extraction: Extraction, report: Callable[[str], None]
) -> Clips:
    """Write the clips and their index. ``report`` gets a line for each recording that has no clips.

    All events are read before the first recording is fetched. A recording whose object is missing, changed, or cannot
    be read does not stop the others.

    Raises:
        OperatorError: the object store refuses the credentials, or another setting is wrong.
        StorageUnavailable: the object store does not answer for several recordings in sequence.
        OutputUnwritable: a file cannot be written.
    """
    new_folder(folder)
    clips = recordings = failed = unanswered = 0
    with _spooled(events) as spooled, written_whole(folder / INDEX) as stream:
        index = _Index(stream)
        for _, group in groupby(spooled, attrgetter("analysis_id")):
            of_analysis = list(group)
            try:
                written = _extract(folder, of_analysis, extraction)
            except TussisError as error:
                if isinstance(error, OperatorError | OutputUnwritable) and not isinstance(error, StorageAccessDenied):
                    raise
                unanswered = unanswered + 1 if isinstance(error, StorageUnavailable) else 0
                if unanswered == _MAX_UNANSWERED:
                    raise
                failed += 1
                report(f"{of_analysis[0].uri}: {error.error_class}: {error}")
                continue
            unanswered = 0
            recordings += 1
            clips += len(written)
            for event, name in written:
                index.add(event, max(0.0, event.start_s - extraction.padding_s), name)
    return Clips(clips, recordings, failed)


@contextmanager
def _spooled(events: Iterable[EventToExtract]) -> Iterator[Iterator[EventToExtract]]:
    """The events from a file, because the rows of a query hold a transaction, and fetching can take hours."""
    with TemporaryFile() as file:
        count = 0
        for count, event in enumerate(events, start=1):  # noqa: B007 - the last value is used
            pickle.dump(event, file)
        file.seek(0)
        yield (pickle.load(file) for _ in range(count))


class _Index:
    """The lines of the index."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._write(INDEX_COLUMNS)

    def add(self, event: EventToExtract, clip_start_s: float, name: str) -> None:
        self._write(
            (event.uri, event.analysis_id, event.index, event.start_s, event.end_s, event.peak, clip_start_s, name)
        )

    def _write(self, cells: Sequence[object]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        self._stream.write(line.getvalue().encode())


def _extract(
    folder: Path, events: Sequence[EventToExtract], extraction: Extraction
) -> list[tuple[EventToExtract, str]]:
    """Write the clips of one analysis; returns the events with the names of their files."""
    first = events[0]
    version = ObjectVersion(first.bucket, first.key, first.etag, first.version_id, first.size_bytes)
    data = fetch(
        extraction.s3,
        version,
        max_bytes=extraction.limits.max_bytes,
        deadline_s=extraction.download_timeout_s,
        verify_md5=extraction.verify_md5,
    )
    names = {event.index: file_name(event.key, f"{event.analysis_id}_{event.index}", ".wav") for event in events}
    with _scratch(folder) as scratch:
        streams: list[tuple[Path, ClipFiles]] = []

        def listen(rate_hz: int, channels: int) -> Listener:
            place = scratch / str(len(streams))
            place.mkdir()
            spans = {
                place / names[event.index]: ClipSpan(
                    event.start_s - extraction.padding_s, event.end_s + extraction.padding_s
                )
                for event in events
            }
            streams.append((place, ClipFiles(spans, rate_hz, channels)))
            return streams[-1][1]

        try:
            audio = decode(data, extraction.limits, listen=listen)
        finally:
            for _, files in streams:
                files.close()
        (place,) = (place for place, files in streams if files is audio.listener)
        for event in events:
            if not (place / names[event.index]).exists():
                raise CorruptAudio(f"the audio ends at {audio.duration_s:g} s, before cough event {event.index}")
        for name in names.values():
            (place / name).replace(folder / name)
    return [(event, names[event.index]) for event in events]


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder for unfinished clips, deleted at the end. Raises :class:`OutputUnwritable` for every OSError."""
    try:
        with TemporaryDirectory(prefix=".part-", dir=folder) as scratch:
            yield Path(scratch)
    except OSError as error:
        raise OutputUnwritable(f"cannot write to the folder {folder}: {error.strerror or error}") from error
