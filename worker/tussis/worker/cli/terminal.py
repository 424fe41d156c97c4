"""Text of somebody else's (keys, messages, paths), made fit for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with U+FFFD in the place of control characters: a key may hold any, and a terminal obeys them."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def plain(text: str) -> str:
    """:func:`printable`, and without a meaning as rich's markup."""
    from rich.markup import escape

    return escape(printable(text))
