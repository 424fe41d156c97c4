"""The inputs that a specialised graph has in place of ``spectrograms``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tussis.shared.dsp.constants import FRAMES, IMAGE_SIZE, MEL_BANDS
from tussis.worker.detector.contract import SPECTROGRAMS, Port

#: float32 (batch_size, num_segments, 160, 201), in [-1, 1]: the mel images before the letterbox.
MELS: Final = "mels"
#: bool (): whether the letterboxed image is rounded to float16. The profile ``training`` requires it.
ROUNDED: Final = "round_to_float16"

_MEL_IMAGE: Final = (MEL_BANDS, FRAMES)


@dataclass(frozen=True, slots=True)
class _Stated:
    """A port of the original graph."""

    name: str
    type: str
    shape: Sequence[int | str | None]


def as_contract(inputs: Sequence[Port]) -> list[Port]:
    """Replace the inputs of a specialised graph by those of the graph it was made from. Others stay unchanged."""
    names = {port.name for port in inputs}
    if not {MELS, ROUNDED} <= names:
        return list(inputs)
    found: list[Port] = []
    for port in inputs:
        if port.name == MELS and tuple(port.shape[2:]) == _MEL_IMAGE:
            found.append(_Stated(SPECTROGRAMS, port.type, (*port.shape[:2], 3, IMAGE_SIZE, IMAGE_SIZE)))
        elif port.name != ROUNDED:
            found.append(port)
    return found
