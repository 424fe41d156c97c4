"""The standard streams of a command: nothing that others wrote reaches a terminal as a command, or breaks a line.

Keys, messages and names are escaped where they are printed (:func:`tussis.shared.text.printable`). This is the second
line of defence, for everything that is printed as text.
"""

from __future__ import annotations

import io
import os
import re
import sys
from typing import Final

from tussis.shared.text import UNSAFE

#: What Tussis itself writes to a terminal: the start of a line, and sequences for colours and the cursor (ECMA-48).
_OURS: Final = r"\r|\x1b\[[0-9;?]*[A-Za-z]"
_ON_TERMINAL: Final = re.compile(f"({_OURS}|[\n\t])|{UNSAFE.pattern}")
_ELSEWHERE: Final = re.compile(f"(\r\n|[\n\t])|{UNSAFE.pattern}")


class GuardedStream(io.TextIOWrapper):
    r"""A text stream that writes characters with an effect on a terminal as ``\u009b``, which is also valid in JSON."""

    def write(self, text: str, /) -> int:
        """Write the text with its unsafe characters escaped; returns the number of its characters."""
        super().write((_ON_TERMINAL if self.isatty() else _ELSEWHERE).sub(_escaped, text))
        return len(text)


def _escaped(found: re.Match[str]) -> str:
    return found[1] or f"\\u{ord(found[0]):04x}"


def open_streams() -> None:
    """Make the three standard streams usable, also if the caller has closed some of them, and guard the outputs.

    A closed stream becomes the null device. Otherwise the next file or socket would get its number and receive the
    output. If the encoding of the output lacks a character, its escape is printed.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for good
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and not isinstance(stream, GuardedStream):
            encoding, buffered = stream.encoding, stream.line_buffering
            guarded = GuardedStream(stream.detach(), encoding, errors="backslashreplace", line_buffering=buffered)
            setattr(sys, name, guarded)
            setattr(sys, f"__{name}__", guarded)
