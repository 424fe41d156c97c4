"""The recordings: which there are, in which split, and their samples.

The splits are the pack's own (its README): ``train`` is trained on, ``val`` chooses, ``test`` is measured once.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from training.audio import decoded
from tussis.shared.dsp import profile_named
from tussis.shared.dsp.resampling import resampled
from tussis.shared.dsp.waveform import downmixed, normalised

Wave = npt.NDArray[np.float32]

#: Evaluation only: CC BY-SA 4.0 asks adapted versions to carry the same licence, and the weights are Apache-2.0.
EVALUATION_ONLY: Final = "spoken_digit"


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording of the pack."""

    path: Path
    is_cough: bool
    split: str
    kind: str
    """``cough``, or the class of the background."""
    channel: str
    """How a cough reached its collector: ``telephone`` or ``messenger``; empty for backgrounds."""


def clips(root: Path, split: str) -> list[Clip]:
    """The coughs and backgrounds of one split, in the manifest's order; without ``formats`` and ``adversarial``."""
    with (root / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [
            row for row in csv.DictReader(file) if row["split"] == split and row["label"] in ("cough", "background")
        ]
    return [
        Clip(
            path=root / row["path"],
            is_cough=row["label"] == "cough",
            split=split,
            kind=row["class"],
            channel=_channel(row["note"]) if row["label"] == "cough" else "",
        )
        for row in rows
    ]


def wave(path: Path) -> Wave:
    """The recording at its own level relative to its peak: float32 (n,) at 16 kHz, peak near 1, not filtered.

    The high-pass of the profile is left to the finished scene, so that it runs once.
    """
    samples, rate_hz = decoded(path)
    one = resampled(downmixed(normalised(torch.from_numpy(samples), profile_named("documented"))), rate_hz)
    return one.numpy()


def _channel(note: str) -> str:
    return "telephone" if "call-center" in note else "messenger"
