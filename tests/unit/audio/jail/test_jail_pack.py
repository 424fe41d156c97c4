"""The jail changes no bit of a result, and no word of a refusal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from tests.support.encoding import interleaved, wav
from tests.support.pack import Entry, listed
from tests.support.recordings import cough_like, quantised
from tussis.shared.errors import AudioError
from tussis.worker.audio.decode import decode
from tussis.worker.audio.jail.decoder import JailedDecoder
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.samples import Audio

LIMITS = Limits(max_duration_s=3600.0)


@pytest.fixture(scope="module")
def shared_jail() -> Iterator[JailedDecoder]:
    one = JailedDecoder(LIMITS, tries=1)
    yield one
    one.close()


def outcome(data: bytes, jail: JailedDecoder | None, limits: Limits = LIMITS) -> Audio | tuple[str, str]:
    try:
        return decode(data, limits) if jail is None else jail.decode(data)
    except AudioError as error:
        return error.error_class, str(error)


def assert_same(data: bytes, jail: JailedDecoder, limits: Limits = LIMITS) -> None:
    inside, outside = outcome(data, jail), outcome(data, None, limits)
    if isinstance(inside, tuple) or isinstance(outside, tuple):
        assert inside == outside
        return
    assert np.array_equal(inside.samples, outside.samples)
    assert inside.samples.flags.c_contiguous == outside.samples.flags.c_contiguous
    assert inside.quality == outside.quality
    for field in fields(Audio):
        if field.name not in ("samples", "meter"):
            assert getattr(inside, field.name) == getattr(outside, field.name), field.name


@pytest.mark.parametrize("entry", [*listed("formats/"), *listed("adversarial/")])
def test_the_pack_has_the_same_samples_and_refusals(pack: Path, entry: Entry, shared_jail: JailedDecoder) -> None:
    assert_same((pack / entry.path).read_bytes(), shared_jail)


def test_coughs_have_the_same_samples(pack: Path, shared_jail: JailedDecoder) -> None:
    coughs = sorted((pack / "coughs").rglob("*.wav"))[:40] or sorted(pack.rglob("*.wav"))[:40]
    assert coughs
    for file in coughs:
        assert_same(file.read_bytes(), shared_jail)


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_a_long_recording_is_streamed_to_the_same_samples(jail: object, channels: int) -> None:
    """numpy adds eight channels in another order when they lie beside each other."""
    limits = Limits(whole_bytes=2**20)
    data = wav(interleaved(quantised(cough_like(90.0, 16_000, channels=channels), 2)), channels=channels)
    one = jail(limits=limits)  # type: ignore[operator]
    assert_same(data, one, limits)
    streamed = one.decode(data)
    assert streamed.streamed
    assert streamed.samples.shape[0] == 1


def test_the_tick_is_called_each_minute(jail: object) -> None:
    ticks: list[int] = []
    data = wav(interleaved(quantised(cough_like(200.0, 8_000, channels=1), 2)), channels=1, rate_hz=8_000)
    jail().decode(data, tick=lambda: ticks.append(1))  # type: ignore[operator]
    assert len(ticks) == 3
