"""The verdict on a repetition, in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from tussis.shared.errors import PermanentError
from tussis.shared.store.records import Analysis, Result
from tussis.worker.reproduction.comparison import SAME, ComparedValue, Comparison, other_software

#: Names of columns -> words.
_WORDS: Final = {
    "tussis_version": "Tussis",
    "onnxruntime_version": "onnxruntime",
    "torch_version": "torch",
    "torchaudio_version": "torchaudio",
    "decoder_library": "decoder's library",
}


class Agreement(StrEnum):
    """How far the row and its repetition agree."""

    SAME = "same"
    WITHIN_TOLERANCE = "within_tolerance"
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict and the line that says why."""

    agreement: Agreement
    line: str


def verdict(comparison: Comparison) -> Verdict:
    """The verdict on two results."""
    versions = _versions(comparison.software, known=comparison.software_known)
    deleted = "without the segments, which `tussis retain` deleted" if comparison.segments_deleted else ""
    differences = comparison.differences
    if differences:
        return Verdict(
            Agreement.DIFFERENT, f"DIFFERENT: {'; '.join(map(in_words, differences))}{_brackets(deleted, versions)}"
        )
    if comparison.largest_difference <= SAME:
        notes = _brackets(deleted, versions if comparison.software else "")
        return Verdict(Agreement.SAME, f"same to 1e-6{notes}")
    where = comparison.largest.name.replace("_", " ")
    return Verdict(
        Agreement.WITHIN_TOLERANCE,
        f"same decision, largest difference {exponent(comparison.largest_difference)} in {where}"
        f"{_brackets(deleted, versions)}",
    )


def verdict_of_failure(analysis: Analysis, here: Result | PermanentError) -> Verdict:
    """The verdict if the row has a failure, or the repetition has one."""
    row = f"the row has the failure {analysis.error_class}" if analysis.error_class else "the row has a result"
    if not isinstance(here, PermanentError):
        found = f"cough is {'true' if here.decision else 'false'}, bag probability {here.bag_probability:.6g}"
        pairs = tuple(other_software(analysis.software, here.software))
        versions = _versions(pairs, known=analysis.software is not None)
        return Verdict(Agreement.DIFFERENT, f"DIFFERENT: {row}, and here the analysis succeeds ({found}; {versions})")
    if here.error_class == analysis.error_class:
        return Verdict(Agreement.SAME, f"same failure: {here.error_class}")
    return Verdict(Agreement.DIFFERENT, f"DIFFERENT: {row}, and here the analysis fails as {here.error_class}: {here}")


def in_words(pair: ComparedValue) -> str:
    """A difference: ``duration s: 3.2 in the row, 3.1 here``."""
    name = _WORDS.get(pair.name, pair.name.replace("_", " "))
    return f"{name}: {shown(pair.row)} in the row, {shown(pair.here)} here"


def shown(value: Any) -> str:
    """A value as text: no rounding that hides a difference."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.9g}"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return "unknown" if value in (None, "") else str(value)


def exponent(value: float) -> str:
    """A small number with one digit: ``3e-5``."""
    digit, power = f"{value:.0e}".split("e")
    return f"{digit}e{int(power)}"


def _versions(differing: Sequence[ComparedValue], *, known: bool) -> str:
    if not known:
        return "the row does not name its versions"
    if not differing:
        return "the same versions and processor"
    return "; ".join(
        f"other {_WORDS.get(pair.name, pair.name)}: {shown(pair.here)} here, {shown(pair.row)} there"
        for pair in differing
    )


def _brackets(*notes: str) -> str:
    said = "; ".join(note for note in notes if note)
    return f" ({said})" if said else ""
