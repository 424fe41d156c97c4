"""Reads the answers of another system: JSON lines with the response of the old HTTP backend and ``file``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tussis.shared.dsp.constants import HOP_SECONDS
from tussis.shared.errors import AnswersInvalid, FileUnreadable
from tussis.shared.uris import shown

_PROBABILITY: Final = ("file_probability", "confidence")


@dataclass(frozen=True, slots=True)
class ForeignAnswer:
    """The other system's answer for one recording."""

    file: str
    """As in the line: path, name or S3 URI."""
    line: int
    probability: float
    decision: bool | None
    threshold: float | None
    num_segments: int | None
    segments: Mapping[float, float]
    """Start of a segment in seconds -> its probability. Empty if the answer has no segments."""


@dataclass(frozen=True, slots=True)
class ForeignAnswers:
    """A file of answers."""

    path: Path
    answers: tuple[ForeignAnswer, ...]
    unanswered: int
    """Lines without a probability: the other system reported an error."""


def read_answers(path: Path) -> ForeignAnswers:
    """The answers of another system, one JSON object a line.

    ``file`` and ``file_probability`` or ``confidence`` are needed. ``coughDetected``, ``threshold_used``,
    ``num_segments``, ``segment_probabilities`` and ``segment_timestamps`` are read if they are there. Other fields are
    ignored. A line with neither probability is counted as unanswered.

    Raises:
        FileUnreadable: the file does not exist or may not be read.
        AnswersInvalid: a line is not such an object, a file has two answers, or there is no answer.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise AnswersInvalid(f"{path} is not UTF-8 text: write JSON lines in UTF-8") from None
    except OSError as error:
        raise FileUnreadable(f"cannot read {path}: {error.strerror or error}") from error
    found: dict[str, ForeignAnswer] = {}
    unanswered = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        document = _object(line, place)
        if all(document.get(name) is None for name in _PROBABILITY):
            unanswered += 1
            continue
        answer = _answer(document, number, place)
        if answer.file in found:
            raise AnswersInvalid(f"{place}: {shown(answer.file)} has an answer in line {found[answer.file].line} too")
        found[answer.file] = answer
    if not found:
        raise AnswersInvalid(f"{path} has no answers: write one JSON object a line, with file and confidence")
    return ForeignAnswers(path, tuple(found.values()), unanswered)


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise AnswersInvalid(f"{place} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise AnswersInvalid(f"{place} is not a JSON object: write one object a line")
    if not isinstance(document.get("file"), str) or not document["file"]:
        raise AnswersInvalid(f'{place} has no "file": write the path, the name or the URI of the recording')
    return document


def _answer(document: dict[str, Any], number: int, place: str) -> ForeignAnswer:
    name = next(name for name in _PROBABILITY if document.get(name) is not None)
    decision, count = document.get("coughDetected"), document.get("num_segments")
    if decision is not None and not isinstance(decision, bool):
        raise AnswersInvalid(f'{place}: "coughDetected" is {shown(decision)}: write true or false')
    if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
        raise AnswersInvalid(f'{place}: "num_segments" is {shown(count)}: write a whole number')
    threshold = document.get("threshold_used")
    segments = _segments(document, place)
    return ForeignAnswer(
        file=document["file"],
        line=number,
        probability=_probability(document[name], name, place),
        decision=decision,
        threshold=None if threshold is None else _probability(threshold, "threshold_used", place),
        num_segments=count if count is not None else len(segments) or None,
        segments=segments,
    )


def _segments(document: dict[str, Any], place: str) -> dict[float, float]:
    values = document.get("segment_probabilities")
    if values is None:
        return {}
    if not isinstance(values, list):
        raise AnswersInvalid(f'{place}: "segment_probabilities" is no list')
    probabilities = [_probability(value, "segment_probabilities", place) for value in values]
    times = document.get("segment_timestamps")
    starts = [index * HOP_SECONDS for index in range(len(probabilities))] if times is None else _starts(times, place)
    if len(starts) != len(probabilities):
        raise AnswersInvalid(f"{place}: {len(starts)} segment_timestamps for {len(probabilities)} probabilities")
    return dict(zip(starts, probabilities, strict=True))


def _starts(times: object, place: str) -> list[float]:
    """The starts of pairs of seconds, rounded to milliseconds."""
    if not isinstance(times, list):
        raise AnswersInvalid(f'{place}: "segment_timestamps" is no list')
    starts = []
    for pair in times:
        start = pair[0] if isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2 else None
        if isinstance(start, bool) or not isinstance(start, int | float) or not math.isfinite(start):
            raise AnswersInvalid(f"{place}: {shown(pair)} in segment_timestamps is no pair of seconds")
        starts.append(round(float(start), 3))
    return starts


def _probability(value: object, name: str, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise AnswersInvalid(f'{place}: {shown(value)} in "{name}" is no number from 0 to 1')
    return float(value)
