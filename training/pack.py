"""The recordings of the audio pack, their splits and their samples.

The splits are defined by the pack (see its README): ``train`` for training, ``val`` for choices, ``test`` for one final
measurement.
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

#: For evaluation only: CC BY-SA 4.0 requires the same licence for adapted versions, and the weights are Apache-2.0.
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
    """The channel of a cough's recording: ``telephone`` or ``messenger``. Empty for backgrounds."""


def clips(root: Path, split: str) -> list[Clip]:
    """The coughs and backgrounds of one split, in the order of the pack's manifest, without other labels."""
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
    """The recording normalised to its peak: float32 (n,) at 16 kHz, peak near 1, not filtered.

    The profile's high-pass filter is applied to the complete scene, so that it runs only once.
    """
    samples, rate_hz = decoded(path)
    one = resampled(downmixed(normalised(torch.from_numpy(samples), profile_named("documented"))), rate_hz)
    return one.numpy()


def _channel(note: str) -> str:
    return "telephone" if "call-center" in note else "messenger"
