"""The answer of a model for one recording, as the measures take it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tussis.shared.errors import FileUnreadable, ResultsInvalid
from tussis.shared.events import CoughEvent, bin_probabilities, find_events


@dataclass(frozen=True, slots=True)
class Scored:
    """One recording with its result. Probabilities are between 0 and 1, times are seconds."""

    uri: str
    """Path or S3 URI."""
    probability: float
    """Bag probability."""
    logit: float
    """Its logit. It may be infinite."""
    threshold: float
    duration_s: float
    analyzed_s: float
    model: str
    setup: str
    """Profile and coverage."""
    starts: Sequence[float] | None
    """Start of each segment. None if the segments are not known."""
    probabilities: Sequence[float] | None
    """Probability of each segment. None if the segments are not known."""

    def events(self, threshold: float) -> tuple[CoughEvent, ...]:
        """The cough events at a threshold of the bins. The segments must be known."""
        assert self.starts is not None
        assert self.probabilities is not None
        return find_events(self.starts, self.probabilities, self.duration_s, threshold)


def logit_of(probability: float) -> float:
    """The natural logarithm of the odds."""
    if 0 < probability < 1:
        return math.log(probability) - math.log1p(-probability)
    return math.copysign(math.inf, probability - 0.5)


def scored_of(result: Mapping[str, Any]) -> Scored:
    """The result of ``tussis analyze --json``, or of ``tussis results --json`` if it is a result.

    Raises ``KeyError``, ``TypeError`` or ``ValueError`` if it is something else.
    """
    segments = result.get("segments")
    probability, duration_s = float(result["bag_probability"]), float(result["duration_s"])
    analyzed_s, threshold = float(result["analyzed_s"]), float(result["threshold"])
    logit = result.get("bag_logit")
    if not (0 <= probability <= 1 and 0 <= threshold <= 1 and 0 < duration_s < math.inf and 0 < analyzed_s < math.inf):
        raise ValueError("a number is out of its range")
    starts = None if segments is None else [float(one["start_s"]) for one in segments]
    probabilities = None if segments is None else [float(one["probability"]) for one in segments]
    bin_probabilities(starts or (), probabilities or (), duration_s)
    return Scored(
        uri=str(result["uri"]),
        probability=probability,
        logit=logit_of(probability) if logit is None else float(logit),
        threshold=threshold,
        duration_s=duration_s,
        analyzed_s=analyzed_s,
        model=str(result["model"]),
        setup=f"{result['profile']}, {result.get('coverage') or 'coverage not known'}",
        starts=starts,
        probabilities=probabilities,
    )


@dataclass(frozen=True, slots=True)
class ScoredAnswers:
    """The answers of one run: results, and recordings without one."""

    scored: tuple[Scored, ...]
    failed: Mapping[str, str]
    """URI -> why there is no result."""


def read_results(path: Path, model: str | None = None) -> ScoredAnswers:
    """The results in a file with a JSON object a line. Of several lines about one recording the first counts.

    ``tussis analyze --json`` and ``tussis results --json --segments`` write such a file. ``tussis results`` prints the
    newest analysis first. ``model`` is a name or name@version: only its results.

    Raises:
        FileUnreadable: the file does not exist or may not be read.
        ResultsInvalid: a line is not such an object, or there is no line.
    """
    scored: dict[str, Scored] = {}
    failed: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    result = json.loads(line)
                    uri = str(result["uri"])
                    if not _is_by(result.get("model"), model):
                        continue
                    if result.get("bag_probability") is None:
                        failed.setdefault(uri, _reason(result))
                    elif uri not in scored:
                        scored[uri] = scored_of(result)
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    raise ResultsInvalid(
                        f"{path}, line {number}: not a result of `tussis analyze --json` or "
                        f"`tussis results --json --segments` ({type(error).__name__}: {error})"
                    ) from None
    except UnicodeDecodeError:
        raise ResultsInvalid(f"{path} is not UTF-8 text: write it with `tussis analyze --json`") from None
    except OSError as error:
        raise FileUnreadable(f"cannot read {path}: {error.strerror or error}") from error
    if not scored and not failed:
        whose = f" of the model {model}" if model else ""
        raise ResultsInvalid(f"{path} has no results{whose}: write it with `tussis analyze --json`")
    return ScoredAnswers(tuple(scored.values()), {uri: why for uri, why in failed.items() if uri not in scored})


def _is_by(label: str | None, model: str | None) -> bool:
    """Whether name@version is the model. A failed analysis may have no model; it counts for every model."""
    return None in (label, model) or model in (label, str(label).partition("@")[0])


def _reason(result: Mapping[str, Any]) -> str:
    error = result.get("error")
    return f"{error['class']}: {error['message']}" if error else f"no result: {result.get('state', 'state not known')}"
