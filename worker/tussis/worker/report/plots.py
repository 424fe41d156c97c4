"""Drawings as SVG, stretched to the width of the page.

Positions along an axis are percentages, so that the text keeps its size on a phone. Curves are paths in an inner
drawing, which is stretched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tussis.worker.report.html import data_uri, text
from tussis.worker.report.words import clock

#: Distances between the labels of a time axis, seconds.
_STEPS: Final = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
#: The most labels of an axis: on a phone they must not touch.
_LABELS: Final = 6
#: Height of the inner drawing of a curve; its width is 1000.
_HEIGHT: Final = 100

Pair = tuple[float, float]


def ticks(span_s: float) -> list[tuple[float, str]]:
    """Times on an axis from 0 to ``span_s``, seconds, with their labels."""
    step = next((step for step in _STEPS if span_s / step <= _LABELS), span_s / _LABELS)
    count = int(span_s / step + 1e-9)
    return [
        (index * step, clock(index * step) if span_s > 120 else f"{index * step:g} s") for index in range(count + 1)
    ]


def time_axis(span_s: float) -> str:
    """The labels of a time axis from 0 to ``span_s``, seconds."""
    return _axis([(100 * at / span_s, label) for at, label in ticks(span_s)])


def share_axis() -> str:
    """The labels of an axis from 0 to 1."""
    return _axis([(percent, f"{percent / 100:g}") for percent in (0, 25, 50, 75, 100)])


def _axis(labels: Sequence[tuple[float, str]]) -> str:
    shown = "".join(
        f'<text x="{percent:.2f}%" y="1em" text-anchor="{_anchor(percent)}">{text(label)}</text>'
        for percent, label in labels
    )
    return f'<svg class="axis" aria-hidden="true">{shown}</svg>'


def _anchor(percent: float) -> str:
    return "start" if percent < 3 else "end" if percent > 95 else "middle"


def figure(kind: str, label: str, inside: str, caption: str, *, below: str = "", seek: bool = False) -> str:
    """A drawing with its caption. ``label`` describes it to those who do not see it.

    ``inside`` and ``below`` are HTML; ``caption`` and ``label`` are plain text. With ``seek``, a click sets the time of
    the player, and the drawing has a cursor.
    """
    cursor = '<line class="cursor" y1="0" y2="100%" visibility="hidden"/>' if seek else ""
    return (
        f'<figure>\n<figcaption>{text(caption)}</figcaption>\n<svg class="{kind}{" seek" if seek else ""}" role="img" '
        f'aria-label="{text(label)}">{inside}{cursor}</svg>{below}\n</figure>'
    )


def waveform(envelope: Sequence[Pair], column_share: float) -> str:
    """A waveform from the lowest and highest sample of each column. A column has this share of the axis."""
    width = 1000 * column_share
    upper = [f"{index * width:.2f} {_at(high, -1, 1):.2f}" for index, (_, high) in enumerate(envelope)]
    lower = [f"{index * width:.2f} {_at(low, -1, 1):.2f}" for index, (low, _) in enumerate(envelope)]
    # The mean of a column may be away from zero; a thin line keeps silence visible.
    return '<line x1="0" x2="100%" y1="50%" y2="50%" class="line-even"/>' + stretched(
        f'<path class="fill-wave" d="M{" L".join([*upper, *reversed(lower)])} Z"/>'
    )


def image(png: bytes, share: float) -> str:
    """An image over the first part of the axis."""
    return (
        f'<image href="{data_uri("image/png", png)}" x="0" y="0" width="{100 * share:.3f}%" height="100%" '
        'preserveAspectRatio="none"/>'
    )


def curve(points: Sequence[Pair]) -> str:
    """A line through points whose coordinates are from 0 to 1. A single point is a short line."""
    if len(points) == 1:
        points = [(points[0][0] - 0.01, points[0][1]), (points[0][0] + 0.01, points[0][1])]
    path = " L".join(f"{1000 * x:.2f} {_at(y, 0, 1):.2f}" for x, y in points)
    return stretched(f'<path class="line-score" d="M{path}"/>')


def bands(spans: Sequence[Pair], kind: str) -> str:
    """Parts of the axis from top to bottom. Positions are from 0 to 1. Each is at least 0.2 % wide."""
    return "".join(
        f'<rect class="{kind}" x="{100 * start:.3f}%" y="0" width="{max(0.2, 100 * (end - start)):.3f}%" '
        'height="100%"/>'
        for start, end in spans
    )


def level_line(level: float, label: str) -> str:
    """A dashed line at a level from 0 to 1, with its label at the right."""
    y = 100 * (1 - level)
    # Above the line, unless the label would leave the drawing.
    shift = "1.1em" if level > 0.85 else "-0.3em"
    return (
        f'<line class="line-limit" x1="0" x2="100%" y1="{y:.2f}%" y2="{y:.2f}%"/>'
        f'<text x="99%" y="{y:.2f}%" dy="{shift}" text-anchor="end">{text(label)}</text>'
    )


def upright_line(share: float) -> str:
    """A dashed line from top to bottom at a position from 0 to 1."""
    return f'<line class="line-limit" x1="{100 * share:.2f}%" x2="{100 * share:.2f}%" y1="0" y2="100%"/>'


def stacks(columns: Sequence[Sequence[tuple[int, str]]]) -> str:
    """A column for each stack of (count, class), from the bottom up, scaled to the highest stack."""
    highest = max((sum(count for count, _ in column) for column in columns), default=0)
    width = 100 / max(1, len(columns))
    drawn = []
    for index, column in enumerate(columns):
        top = 100.0
        for count, kind in column:
            if count:
                # A count of one stays visible beside thousands.
                height = max(0.8, 94 * count / highest)
                top -= height
                drawn.append(
                    f'<rect class="{kind}" x="{index * width + 0.05 * width:.3f}%" y="{top:.3f}%" '
                    f'width="{0.9 * width:.3f}%" height="{height:.3f}%"/>'
                )
    return "".join(drawn)


def diagonal() -> str:
    """The line from the lower left to the upper right corner."""
    return '<line class="line-even" x1="0" y1="100%" x2="100%" y2="0"/>'


def stretched(inside: str) -> str:
    """A drawing of 1000 by 100, stretched to the one around it."""
    return (
        f'<svg viewBox="0 0 1000 {_HEIGHT}" preserveAspectRatio="none" width="100%" height="100%" class="inner">'
        f"{inside}</svg>"
    )


def _at(value: float, low: float, high: float) -> float:
    """The height of a value in the inner drawing."""
    return _HEIGHT * (1 - (min(max(value, low), high) - low) / (high - low))
