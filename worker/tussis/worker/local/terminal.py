"""Consoles for tables and text: folded to the width of a terminal, one line for each row elsewhere."""

from __future__ import annotations

import codecs
import io
import sys
from typing import TYPE_CHECKING, Any, Final, TextIO

from tussis.shared.text import printable

if TYPE_CHECKING:
    from rich.console import Console

#: The width without a terminal: more characters than any row (a key has at most 1,024 bytes, a message some thousand).
PIPE_WIDTH: Final = 100_000


def on_terminal() -> bool:
    """Whether standard output is a terminal. In a pipe or file a table has one line for each row and no colours."""
    return sys.stdout.isatty()


def console() -> Console:
    """Standard output for tables and text. Text is folded to the width of a terminal; elsewhere nothing is folded."""
    from rich.console import Console

    class Standard(Console):
        def on_broken_pipe(self) -> None:
            """Leave the error to the root command. Rich would end the process with status 1."""
            raise BrokenPipeError

    # Emoji codes (":bell:") are shown as text, because keys may contain them.
    if on_terminal():
        return Standard(highlight=False, emoji=False)
    return Standard(highlight=False, emoji=False, width=PIPE_WIDTH, force_terminal=False, color_system=None)


class TerminalBytes(io.RawIOBase):
    """Bytes of UTF-8 for a text stream: what is written becomes text, so that the stream can escape characters."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def writable(self) -> bool:
        """It can be written to."""
        return True

    def write(self, data: Any, /) -> int:
        """Write the bytes; returns their number."""
        view = memoryview(data)
        self._stream.write(self._decoder.decode(bytes(view)))
        return view.nbytes

    def flush(self) -> None:
        """Flush the text stream."""
        self._stream.flush()


def plain(text: str) -> str:
    """:func:`printable`, with rich's markup escaped."""
    from rich.markup import escape

    return escape(printable(text))
