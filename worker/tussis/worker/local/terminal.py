"""Tables: folded to the width of a terminal, one row a line everywhere else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from tussis.shared.text import printable

if TYPE_CHECKING:
    from rich.console import Console

#: Columns where there is no screen: more than any row has (a key has at most 1,024 bytes, a message some thousand).
PIPE_WIDTH: Final = 100_000


def on_terminal() -> bool:
    """Whether standard output is a terminal. Elsewhere (a pipe, a file) a table has one row a line and no colours."""
    return sys.stdout.isatty()


def console() -> Console:
    """Standard output for tables and text. On a terminal it has the terminal's width, else nothing is folded or cut."""
    from rich.console import Console

    class Standard(Console):
        def on_broken_pipe(self) -> None:
            """Leave it to the root command; rich would end the process with status 1."""
            raise BrokenPipeError

    # Emoji codes (":bell:") are text here: keys hold them.
    if on_terminal():
        return Standard(highlight=False, emoji=False)
    return Standard(highlight=False, emoji=False, width=PIPE_WIDTH, force_terminal=False, color_system=None)


def plain(text: str) -> str:
    """:func:`printable`, and without a meaning as rich's markup."""
    from rich.markup import escape

    return escape(printable(text))
