"""The JSON of ``tussis evaluate``. ``docs/evaluate.md`` describes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tussis.worker.cli.evaluate_answers import Gathered
from tussis.worker.evaluation.evaluation import Case, Evaluation
from tussis.worker.evaluation.events import TOLERANCES_S


def as_object(done: Evaluation, cases: Sequence[Case], gathered: Gathered) -> Any:
    """All results as a JSON object. A number without data is null."""
    first = cases[0].scored
    return _plain(
        {
            "model": first.model,
            "setups": sorted({case.scored.setup for case in cases}),
            "threshold": done.all.decisions.counts.threshold,
            "tolerances_s": TOLERANCES_S,
            **asdict(done),
            "left_out": {
                "labels_without_recording": gathered.missing,
                "recordings_without_label": len(gathered.unlabelled),
                "failed": gathered.failed,
            },
        }
    )


def _plain(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {key: _plain(one) for key, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
    return value
