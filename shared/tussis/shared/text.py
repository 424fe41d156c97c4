"""Text for people: strings that others wrote, on one line of a terminal; probabilities that say no more than they are.

JSON outputs need neither: they hold the exact value.
"""

from __future__ import annotations

import re
from typing import Final

#: What a terminal obeys or what ends a line: control characters (C0, DEL, C1), the line and paragraph separators, the
#: controls of writing direction (Unicode TR 9; they can make a text look like another), and lone surrogates, which
#: stand for the bytes of a file name that is not UTF-8 (PEP 383) and cannot be encoded.
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
#: Digits behind the point of a probability, unless more are needed.
_DIGITS: Final = 3
#: 17 significant digits tell any two doubles apart.
_MOST_DIGITS: Final = 17


def printable(text: str) -> str:
    r"""The text with every character that is not fit for one line of a terminal as its Python escape: ``\t``, ``\x1b``.

    A backslash stays as it is, so that most texts do too. Use it wherever a key, a URI, a file name, an error message
    or a name from elsewhere is printed for people.
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def probability(value: float, threshold: float | None = None) -> str:
    """A probability with three digits behind the point, and never as a value that would say something else.

    Below 1 it is never shown as 1, above 0 never as 0: ``>0.999`` and ``<0.001``. Where it decided about something at a
    ``threshold``, what is shown lies on the same side of it: 0.74996 at 0.75 is ``0.74996``.
    """
    if threshold is None or 0.001 <= threshold <= 0.999:
        if 0.9995 <= value < 1 and float(f"{value:.{_DIGITS}f}") == 1:
            return ">0.999"
        if 0 < value <= 0.0005 and float(f"{value:.{_DIGITS}f}") == 0:
            return "<0.001"
    marks = (0.0, 1.0) if threshold is None else (0.0, 1.0, threshold)
    for digits in range(_DIGITS, _MOST_DIGITS):
        text = f"{value:.{digits}f}"
        if all(_order(float(text), mark) == _order(value, mark) for mark in marks):
            return text
    return repr(value)


def _order(value: float, mark: float) -> int:
    """-1, 0 or 1: below the mark, on it, above it."""
    return (value > mark) - (value < mark)
