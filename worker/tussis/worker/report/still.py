"""The report of one analysis as a PNG: the same pictures as in the HTML, without the tables.

Drawn with Pillow and the font in it, so that no browser and no font of the machine is needed.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from tussis.shared.events import EVENT_THRESHOLD
from tussis.shared.text import printable
from tussis.worker.report.analysis_page import headline, score_points, summary
from tussis.worker.report.evidence import Evidence
from tussis.worker.report.plots import ticks
from tussis.worker.report.words import moment, warning

WIDTH: Final = 1_200
_LEFT, _RIGHT = 30, WIDTH - 30
_TEXT, _SOFT, _LINE, _BOX = "#1b1f24", "#57606a", "#d0d7de", "#f6f8fa"
_BLUE, _RED, _EVENT = "#0969da", "#b3261e", "#f5b7b1"
#: Characters of the normal text in a line.
_CHARACTERS: Final = 110


def still(evidence: Evidence) -> bytes:
    """The picture as PNG, 1200 pixels wide."""
    # High enough for every picture and every warning; cut at the end.
    drawing = _Drawing(Image.new("RGB", (WIDTH, 2_400), "white"))
    analysis, sound, span = evidence.analysis, evidence.sound, evidence.span_s
    drawing.write(headline(analysis), 34, _RED if analysis.decision else _TEXT)
    drawing.write(analysis.uri, 18, _TEXT)
    drawing.write(summary(analysis), 18, _TEXT)
    for name in analysis.warnings or ():
        drawing.write(f"Warning: {warning(name)}", 18, _RED)
    if sound is None:
        drawing.write(f"The recording is not available. {evidence.no_sound}", 18, _TEXT)
    else:
        drawing.write("Waveform", 16, _SOFT)
        drawing.wave(sound.envelope, sound.envelope_column_s / span)
        drawing.axis(span)
        drawing.write("Mel image, 50 Hz (bottom) to 4 kHz (top)", 16, _SOFT)
        drawing.picture(sound.mel_png, sound.span_s / span)
        drawing.axis(span)
    if evidence.segments:
        points, each = score_points(evidence)
        of = f", the highest of {each} segments for each point" if each > 1 else ""
        drawing.write(f"Probability of each segment, 0 to 1{of}. Shaded: cough events.", 16, _SOFT)
        drawing.scores(
            [(at / span, value) for at, value in points],
            [(event.start_s / span, event.end_s / span) for event in evidence.events],
        )
        drawing.axis(span)
    drawing.write(
        f"Analysis {analysis.id}, model {analysis.model or 'unknown'}, profile {analysis.profile or 'unknown'}, "
        f"coverage {analysis.coverage}, finished {moment(analysis.finished_at) or 'never'}. "
        f"Tussis {evidence.version}. A result is the output of a model. It is not a diagnosis.",
        16,
        _SOFT,
    )
    return drawing.png()


class _Drawing:
    """An image that is filled from the top down."""

    def __init__(self, image: Image.Image) -> None:
        self._image = image
        self._draw = ImageDraw.Draw(image)
        self._y = 24

    def write(self, sentence: str, size: int, colour: str) -> None:
        """Write a text in one or more lines. Characters that the font lacks are shown as Python escapes."""
        shown = printable(sentence).encode("latin-1", "backslashreplace").decode("latin-1")
        font = ImageFont.load_default(size)
        for line in textwrap.wrap(shown, _CHARACTERS * 18 // size, break_on_hyphens=False)[:12]:
            self._draw.text((_LEFT, self._y), line, fill=colour, font=font)
            self._y += round(size * 1.4)
        self._y += 4

    def wave(self, envelope: Sequence[tuple[float, float]], share: float) -> None:
        """Draw the waveform from the lowest and highest sample of each column."""
        top, height = self._frame(140)
        width = share * (_RIGHT - _LEFT)
        for index, (low, high) in enumerate(envelope):
            upper, lower = (top + height * (1 - min(max(value, -1), 1)) / 2 for value in (high, low))
            left = _LEFT + index * width
            self._draw.rectangle((left, upper, max(left, left + width - 1), max(lower, upper)), fill=_BLUE)

    def picture(self, png: bytes, share: float) -> None:
        """Draw an image over the first part of the axis."""
        top, height = self._frame(178)
        mel = Image.open(io.BytesIO(png)).convert("RGB")
        self._image.paste(mel.resize((round(share * (_RIGHT - _LEFT)), height)), (_LEFT, top))

    def scores(self, points: Sequence[tuple[float, float]], events: Sequence[tuple[float, float]]) -> None:
        """Draw the probabilities and the cough events. Positions are from 0 to 1."""
        top, height = self._frame(180)
        for start, end in events:
            self._draw.rectangle(
                (self._x(start), top, max(self._x(end), self._x(start) + 2), top + height), fill=_EVENT
            )
        level = top + height * (1 - EVENT_THRESHOLD)
        self._draw.line((_LEFT, level, _RIGHT, level), fill=_RED)
        line = [(self._x(at), top + height * (1 - value)) for at, value in points]
        if len(line) > 1:
            self._draw.line(line, fill=_BLUE, width=3, joint="curve")
        for x, y in line if len(line) <= 200 else []:
            self._draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=_BLUE)

    def axis(self, span_s: float) -> None:
        """Write the times below a drawing."""
        font = ImageFont.load_default(15)
        for at, label in ticks(span_s):
            x = self._x(at / span_s)
            anchor = "la" if at == 0 else "ra" if at / span_s > 0.95 else "ma"
            self._draw.text((x, self._y), label, fill=_SOFT, font=font, anchor=anchor)
        self._y += 30

    def png(self) -> bytes:
        """The drawing so far."""
        out = io.BytesIO()
        self._image.crop((0, 0, WIDTH, self._y + 16)).save(out, "PNG", optimize=True)
        return out.getvalue()

    def _frame(self, height: int) -> tuple[int, int]:
        top = self._y
        self._draw.rectangle((_LEFT, top, _RIGHT, top + height), fill=_BOX, outline=_LINE)
        self._y += height + 6
        return top, height

    @staticmethod
    def _x(share: float) -> float:
        return _LEFT + share * (_RIGHT - _LEFT)
