"""How a long recording is cut up for the steps that take many times its memory."""

from __future__ import annotations


def spans(length: int, size: int) -> list[tuple[int, int]]:
    """Consecutive spans (first, end) over ``length``, each of at least ``size`` and less than twice it.

    What is shorter than twice ``size`` stays in one piece. No short rest is left over, because torch may take
    another algorithm for a short input, whose sums round differently.
    """
    count = max(1, length // size)
    return [(index * size, length if index == count - 1 else (index + 1) * size) for index in range(count)]
