"""A view, as it is declared."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class View:
    """A view: its SELECT statement, its comment, and the comment of each column."""

    definition: str
    comment: str
    columns: dict[str, str]
