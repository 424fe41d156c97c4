"""Text for people: untrusted strings on one line of a terminal, and rounded probabilities that are not misleading.

JSON outputs need neither, because they have the exact value.
"""

from __future__ import annotations

import re
from typing import Final

#: Characters that control a terminal or end a line: control characters (C0, DEL, C1), the line and paragraph
#: separators, and the controls of writing direction (Unicode TR 9; they can make a text look like another one). Also
#: lone surrogates, which represent the bytes of a file name that is not UTF-8 (PEP 383) and cannot be encoded.
UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
#: Digits after the decimal point of a probability, unless more are needed.
_DIGITS: Final = 3
#: 17 significant digits distinguish any two doubles.
_MOST_DIGITS: Final = 17


def printable(text: str) -> str:
    r"""Replace every character that is unsafe on one line of a terminal by its Python escape: ``\t``, ``\x1b``.

    A backslash is not escaped, so that most texts stay unchanged. Use this function wherever a key, a URI, a file name,
    an error message or an external name is printed for people.
    """
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def json_line(text: str) -> str:
    r"""JSON with ``\u`` escapes for the characters that :func:`printable` escapes. It has the same value."""
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def probability(value: float, threshold: float | None = None) -> str:
    """Format a probability with three digits after the decimal point, or more if rounding would be misleading.

    A value below 1 is never shown as 1, and a value above 0 never as 0: ``>0.999`` and ``<0.001``. With a
    ``threshold``, the shown value is on the same side of it as the exact value: 0.74996 at 0.75 is ``0.74996``.
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
    """-1, 0 or 1: the value is below, equal to, or above the mark."""
    return (value > mark) - (value < mark)
