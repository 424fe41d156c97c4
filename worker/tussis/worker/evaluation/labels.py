"""Reads files of labels: which recordings have a cough, and where the coughs are.

A file of labels is a CSV with the columns ``file`` and ``label``. Every other column is a group: site, device, class.
A file of cough events is a CSV with the columns ``file``, ``start_s`` and ``end_s``. ``uri`` is another name of the
column ``file``. ``docs/evaluate.md`` describes both for users.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from tussis.shared.errors import FileUnreadable, LabelsInvalid
from tussis.shared.uris import shown

Span: TypeAlias = tuple[float, float]
"""Start and end, seconds from the start of the recording."""

_LABELS: Final = {
    **dict.fromkeys(("1", "true", "yes", "cough"), True),
    **dict.fromkeys(("0", "false", "no", "no cough", "no-cough", "no_cough", "other"), False),
}
_FILE: Final = ("file", "uri")


@dataclass(frozen=True, slots=True)
class Label:
    """What a person says about one recording."""

    file: str
    """Path, name or S3 URI, as in the file of labels."""
    is_cough: bool
    groups: Mapping[str, str]
    """The other columns of the line."""
    line: int
    """Line of the file, for messages."""


def read_labels(path: Path) -> tuple[Label, ...]:
    """The labels, in the order of the file. A line that repeats an earlier one is left out.

    Raises:
        FileUnreadable: the file does not exist or may not be read.
        LabelsInvalid: it is not UTF-8, or not a CSV with these columns; a label is not valid; a recording has two
            different labels; or there is no label.
    """
    labels: dict[str, Label] = {}
    for row in _rows(path, ("label",)):
        word = (row.values["label"] or "").strip().lower()
        if word not in _LABELS:
            raise LabelsInvalid(
                f"{row.place}: {shown(row.values['label'])} is not a label: write cough or no-cough, or 1 or 0"
            )
        groups = {name: (value or "").strip() for name, value in row.values.items() if name not in (*_FILE, "label")}
        label = Label(row.file, _LABELS[word], groups, row.line)
        if labels.setdefault(row.file, label).is_cough != label.is_cough:
            raise LabelsInvalid(f"{row.place}: {shown(row.file)} has another label in an earlier line")
    if not labels:
        raise LabelsInvalid(f"{path} has no labels")
    return tuple(labels.values())


def read_events(path: Path) -> dict[str, tuple[Span, ...]]:
    """The cough events of each file, in order of time.

    A line with empty ``start_s`` and ``end_s`` says that somebody listened and that the recording has no cough. Such a
    recording has no events.

    Raises:
        FileUnreadable: the file does not exist or may not be read.
        LabelsInvalid: it is not UTF-8, or not a CSV with these columns; a time is not valid; or events of a recording
            overlap.
    """
    events: dict[str, list[Span]] = {}
    for row in _rows(path, ("start_s", "end_s")):
        own = events.setdefault(row.file, [])
        texts = [(row.values[name] or "").strip() for name in ("start_s", "end_s")]
        if texts == ["", ""]:
            continue
        start, end = (_seconds(text, row.place) for text in texts)
        if not 0 <= start < end:
            raise LabelsInvalid(f"{row.place}: an event from {start:g} to {end:g} s: its end must be after its start")
        own.append((start, end))
    if not events:
        raise LabelsInvalid(f"{path} has no events")
    for file, spans in events.items():
        spans.sort()
        for before, after in itertools.pairwise(spans):
            if after[0] < before[1]:
                raise LabelsInvalid(
                    f"{path}: events of {shown(file)} overlap: {before[0]:g} to {before[1]:g} s and {after[0]:g} to "
                    f"{after[1]:g} s: write them as one event"
                )
    return {file: tuple(spans) for file, spans in events.items()}


@dataclass(frozen=True, slots=True)
class _Row:
    file: str
    values: Mapping[str, str | None]
    """Column -> text. None if the line is too short."""
    line: int
    place: str
    """File and line, for messages."""


def _rows(path: Path, columns: Iterable[str]) -> Iterator[_Row]:
    content = _text(path)
    reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=_delimiter(content))
    try:
        names = set(reader.fieldnames or ())
        named = [name for name in _FILE if name in names]
        missing = [f"no column {name}" for name in sorted(set(columns) - names)]
        if len(named) != 1:
            missing.append("no column uri or file" if not named else "both a column uri and a column file")
        if missing:
            raise LabelsInvalid(f"{path} has {' and '.join(missing)}: write file,{','.join(columns)} first")
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            # The key None has the fields beyond the header.
            values = {name: value for name, value in row.items() if isinstance(name, str)}
            file = values[named[0]] or ""
            # A key in a bucket may begin or end with a space.
            file = file if file.startswith("s3://") else file.strip()
            if not file:
                raise LabelsInvalid(f"{place} has no {named[0]}: write the name of the recording")
            yield _Row(file, values, reader.line_num, place)
    except csv.Error as error:
        raise LabelsInvalid(f"{path}, line {reader.line_num + 1}: {error}") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise LabelsInvalid(f"{path} is not UTF-8 text: save it as CSV in UTF-8") from None
    except OSError as error:
        raise FileUnreadable(f"cannot read {path}: {error.strerror or error}") from error


def _delimiter(content: str) -> str:
    """Spreadsheets of many countries write semicolons, or tabs."""
    header = content.partition("\n")[0]
    return max(",;\t", key=header.count)


def _seconds(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise LabelsInvalid(f"{place}: {shown(text)} is not a time: write seconds, for example 3.25")
    return value
