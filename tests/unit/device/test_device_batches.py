"""Which recordings share a run, and how long anybody waits for company."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from tussis.shared.dsp.constants import HOP_SAMPLES, SEGMENT_SAMPLES
from tussis.worker.device.batches import Queued, RunLimits, WaitingRequests, choose
from tussis.worker.device.wire import ScoreRequest, Wave

LIMITS = RunLimits(segments=64, wait_s=60.0)


def queued(segments: int, *, exclusive: bool = False, profile: str = "documented", owner: Any = None) -> Queued:
    samples = np.zeros((segments - 1) * HOP_SAMPLES + SEGMENT_SAMPLES, dtype=np.float32)
    return Queued(ScoreRequest(0, Wave(samples, profile), exclusive), owner)


def test_recordings_of_one_length_fill_a_run() -> None:
    waiting = [queued(20) for _ in range(5)]
    batch, full = choose(waiting, LIMITS)
    assert (batch, full) == (waiting[:3], True)


def test_the_oldest_is_always_in_and_similar_lengths_join_it() -> None:
    """Given a mix of lengths, when a run is chosen, then padding stays below a quarter of what is computed."""
    waiting = [queued(count) for count in (4, 32, 3, 20, 4, 5)]
    batch, full = choose(waiting, LIMITS)
    assert batch[0] is waiting[0]
    assert {one.segments for one in batch} == {3, 4, 5}
    assert not full
    lengths = [one.segments for one in batch]
    assert sum(lengths) >= 0.75 * max(lengths) * len(lengths)


def test_an_exclusive_request_gets_a_run_of_its_own() -> None:
    exclusive, other = queued(4, exclusive=True), queued(4)
    assert choose([exclusive, other], LIMITS) == ([exclusive], True)
    assert choose([other, exclusive, queued(4)], LIMITS)[0][0] is other
    assert exclusive not in choose([other, exclusive, queued(4)], LIMITS)[0]


def test_profiles_do_not_mix() -> None:
    waiting = [queued(4), queued(4, profile="training"), queued(4)]
    assert choose(waiting, LIMITS)[0] == [waiting[0], waiting[2]]


def test_a_graph_of_one_recording_gets_one() -> None:
    waiting = [queued(4), queued(4)]
    assert choose(waiting, RunLimits(segments=64, wait_s=0, recordings=1)) == (waiting[:1], True)


def test_a_graph_of_fixed_segments_pads_everybody_alike() -> None:
    waiting = [queued(count) for count in (1, 32, 5)]
    batch, full = choose(waiting, RunLimits(segments=64, wait_s=0, fixed_segments=32))
    assert (batch, full) == ([waiting[0], waiting[2]], True)


def test_nobody_waits_when_everybody_is_here() -> None:
    waiting = WaitingRequests(LIMITS, lambda: 2)
    requests = [queued(4), queued(4)]
    for one in requests:
        waiting.add(one)
    assert waiting.take() == requests
    assert len(waiting) == 0


def test_a_full_run_does_not_wait_for_others() -> None:
    waiting = WaitingRequests(LIMITS, lambda: 100)
    for _ in range(4):
        waiting.add(queued(32))
    assert len(waiting.take()) == 2
    assert len(waiting) == 2


def test_the_oldest_waits_no_longer_than_the_limit() -> None:
    """Given company that never comes, when the limit is over, then the run goes without it."""
    waiting = WaitingRequests(RunLimits(segments=64, wait_s=0.02), lambda: 2)
    waiting.add(queued(4))
    began = time.monotonic()
    assert len(waiting.take()) == 1
    # The limit is 60 s in the other tests: whoever waited for company would be seen.
    assert time.monotonic() - began < 30


def test_company_that_comes_within_the_limit_shares_the_run() -> None:
    waiting = WaitingRequests(LIMITS, lambda: 2)
    taken: list[list[Queued]] = []
    taker = threading.Thread(target=lambda: taken.append(waiting.take()))
    waiting.add(queued(4))
    taker.start()
    waiting.add(queued(5))
    taker.join(60)
    assert [len(batch) for batch in taken] == [2]


@pytest.mark.parametrize("closed", [True, False])
def test_a_child_that_is_gone_gets_no_run(closed: bool) -> None:
    owner = object()
    waiting = WaitingRequests(RunLimits(segments=64, wait_s=0), lambda: 1)
    waiting.add(queued(4, owner=owner))
    waiting.drop(owner)
    other = queued(4)
    if closed:
        waiting.close()
    else:
        waiting.add(other)
    assert waiting.take() == ([] if closed else [other])
