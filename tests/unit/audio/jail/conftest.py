"""Decoder processes for the tests of the jail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import jailed
from tussis.worker.audio.jail.decoder import JailedDecoder
from tussis.worker.audio.limits import Limits

Make = Callable[..., JailedDecoder]


@pytest.fixture
def jail() -> Iterator[Make]:
    """Make a decoder whose process has the decoder of a name in ``tests/support/jailed.py``; "" is the product's."""
    made: list[JailedDecoder] = []

    def make(name: str = "", **options: Any) -> JailedDecoder:
        entry = jailed.entry(name) if name else None
        limits = options.pop("limits", Limits(max_duration_s=3600.0))
        made.append(JailedDecoder(limits, **{"tries": 1, "timeout_s": 60.0, **options}, entry=entry))
        return made[-1]

    yield make
    for one in made:
        one.close()
