"""Makes the pictures and the WAV of a recording from its waveform, bag by bag."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from tussis.shared.coverage import Coverage
from tussis.shared.dsp.constants import (
    HOP_SAMPLES,
    IMAGE_SIZE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    MARGIN_ROWS,
    MAX_SEGMENTS,
    SAMPLE_RATE,
    SEGMENT_SAMPLES,
    SEGMENT_SECONDS,
)
from tussis.shared.dsp.images import images
from tussis.shared.dsp.recording import Waveform
from tussis.worker.report.evidence import Sound

#: The most columns of the waveform: as many as a wide page has pixels.
WAVE_COLUMNS: Final = 1_200
#: The most columns of the mel picture: the images of a bag, 17.5 s, are shown whole.
MEL_COLUMNS: Final = 2_016
#: Columns of an image for each hop of 0.5 s.
_HOP_COLUMNS: Final = IMAGE_SIZE * HOP_SAMPLES // SEGMENT_SAMPLES
_HOPS_A_SEGMENT: Final = SEGMENT_SAMPLES // HOP_SAMPLES
#: Colours from the lowest to the highest value. Their lightness rises evenly, so the picture also reads in grey.
_COLOURS: Final = (
    (0, 0, 4),
    (40, 11, 84),
    (101, 21, 110),
    (159, 42, 99),
    (212, 72, 66),
    (245, 125, 21),
    (252, 255, 164),
)


def sound_of(waveform: Waveform, coverage: Coverage, *, with_wav: bool) -> Sound:
    """The sound of the part of a recording that an analysis with this coverage scores.

    Needs memory for one bag. Raises :class:`NoSamples` for an empty recording.
    """
    total = waveform.num_segments_total
    segments = min(total, MAX_SEGMENTS) if coverage is Coverage.HEAD else total
    samples = (segments - 1) * HOP_SAMPLES + SEGMENT_SAMPLES
    highs = _Reduced(samples, WAVE_COLUMNS, np.max)
    lows = _Reduced(samples, WAVE_COLUMNS, np.min)
    mel = _Reduced(samples * _HOP_COLUMNS // HOP_SAMPLES, MEL_COLUMNS, np.mean)
    for index in range(-(-segments // MAX_SEGMENTS)):
        last = (index + 1) * MAX_SEGMENTS >= segments
        cut = waveform.bag(index)
        heard = cut.padded.numpy()[None, : None if last else MAX_SEGMENTS * HOP_SAMPLES]
        highs.add(heard)
        lows.add(heard)
        mel.add(mel_strip(images(cut, waveform.profile).numpy(), whole=last))
    return Sound(
        span_s=samples / SAMPLE_RATE,
        duration_s=waveform.samples.shape[0] / SAMPLE_RATE,
        envelope=list(zip(lows.values()[0].tolist(), highs.values()[0].tolist(), strict=True)),
        envelope_column_s=highs.each / SAMPLE_RATE,
        mel_png=_png(mel.values()),
        mel_column_s=mel.each * SEGMENT_SECONDS / IMAGE_SIZE,
        mel_reduced=mel.each > 1,
        wav=_wav(waveform) if with_wav else None,
    )


def mel_strip(stack: npt.NDArray[np.float32], *, whole: bool) -> npt.NDArray[np.float32]:
    """The images of a bag side by side, from 0 to 1: float32 (178, n), the lowest frequency in the last row.

    Images overlap. Each fourth one is shown, and after the last of these the end of the last image.

    Args:
        stack: the network's input, float32 (S, 3, 224, 224).
        whole: whether to show the bag to its end. Otherwise the strip ends where the next bag starts.
    """
    shown = stack[:, 0, MARGIN_ROWS : IMAGE_SIZE - MARGIN_ROWS] * IMAGENET_STD[0] + IMAGENET_MEAN[0]
    tiles = list(shown[::_HOPS_A_SEGMENT])
    rest = (len(stack) - 1) % _HOPS_A_SEGMENT
    if whole and rest:
        tiles.append(shown[-1][:, IMAGE_SIZE - rest * _HOP_COLUMNS :])
    strip: npt.NDArray[np.float32] = np.concatenate(tiles, axis=1)[::-1]
    return strip


class _Reduced:
    """Reduces rows of ``length`` columns, which come in blocks, to at most ``most`` columns."""

    def __init__(self, length: int, most: int, reduce: Callable[..., Any]) -> None:
        self.each = -(-length // most)
        """Columns that become one. The last one may have fewer."""
        self._reduce = reduce
        self._rest: npt.NDArray[np.float32] | None = None
        self._done: list[npt.NDArray[np.float32]] = []

    def add(self, block: npt.NDArray[np.float32]) -> None:
        """Add the next columns, float32 (rows, n)."""
        if self._rest is not None:
            block = np.concatenate([self._rest, block], axis=1)
        whole = block.shape[1] // self.each * self.each
        self._done.append(self._reduce(block[:, :whole].reshape(block.shape[0], -1, self.each), axis=2))
        self._rest = block[:, whole:].copy()

    def values(self) -> npt.NDArray[np.float32]:
        """All columns so far, float32 (rows, m)."""
        rest = [] if self._rest is None or not self._rest.shape[1] else [self._reduce(self._rest, axis=1)[:, None]]
        return np.concatenate([*self._done, *rest], axis=1)


def _png(strip: npt.NDArray[np.float32]) -> bytes:
    """Values from 0 to 1 as a PNG with a palette."""
    picture = Image.fromarray(np.clip(np.rint(strip * 255), 0, 255).astype(np.uint8), "L")
    steps = np.linspace(0, len(_COLOURS) - 1, 256)
    channels = [np.interp(steps, range(len(_COLOURS)), column) for column in zip(*_COLOURS, strict=True)]
    picture = picture.copy()
    picture.putpalette(np.rint(np.stack(channels, axis=1)).astype(np.uint8).tobytes())
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()


def _wav(waveform: Waveform) -> bytes:
    """The whole recording, before the high-pass."""
    samples = np.clip(waveform.samples.numpy() / waveform.divisor, -1.0, 1.0)
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.rint(samples * 32767).astype("<i2").tobytes())
    return out.getvalue()
