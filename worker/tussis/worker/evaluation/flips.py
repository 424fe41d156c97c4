"""A limit on the number of decisions that flip, for gates of a deployment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

_FLIPS: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(%?)")


@dataclass(frozen=True, slots=True)
class MostFlips:
    """The most decisions that may flip: a number, or a share of the compared recordings."""

    count: Decimal
    is_percent: bool

    @classmethod
    def parse(cls, text: str) -> MostFlips:
        """``5`` or ``0.5%``. Raises ValueError."""
        found = _FLIPS.fullmatch(text.strip())
        if not found or (not found[2] and "." in found[1]) or (found[2] and float(found[1]) > 100):
            raise ValueError(
                f"{text!r} is neither a number of recordings nor a percentage: write for example 5 or 0.5%"
            )
        return cls(Decimal(found[1]), bool(found[2]))

    def admits(self, flips: int, recordings: int) -> bool:
        """Whether this many flips are within the limit."""
        return 100 * flips <= self.count * recordings if self.is_percent else flips <= self.count

    def __str__(self) -> str:
        return f"{self.count} %" if self.is_percent else str(self.count)
