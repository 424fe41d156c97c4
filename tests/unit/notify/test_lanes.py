"""The order of deliveries: within a recording one after the other, across recordings side by side."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from tussis.worker.notify.lanes import Lanes, WaitingWebhook


@dataclass
class Clock:
    at: float = 0.0

    def __call__(self) -> float:
        return self.at


@dataclass
class Rig:
    """Lanes whose ``take`` never waits."""

    retries: int = 4
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.lanes = Lanes(self.retries, self.clock)

    def add(self, *ids: str) -> None:
        """Webhooks ``a1``, ``a2`` belong to the recording ``a``."""
        for webhook_id in ids:
            self.lanes.add(WaitingWebhook(webhook_id, webhook_id[0]))

    def ready(self) -> WaitingWebhook | None:
        """What ``take`` would return; None if it would wait."""
        with self.lanes._changed:
            found, _ = self.lanes._next()
            if found is not None:
                self.lanes._retrying += bool(found.attempts)
            return found


def test_a_recording_that_fails_waits_alone() -> None:
    rig = Rig()
    rig.add("a1", "a2", "b1", "b2")
    first = rig.ready()
    assert first is not None
    assert first.webhook_id == "a1"
    rig.lanes.again(first, 10.0)
    taken = []
    while (found := rig.ready()) is not None:
        taken.append(found.webhook_id)
        rig.lanes.done(found)
    assert taken == ["b1", "b2"]
    rig.clock.at = 10.0
    for expected in ("a1", "a2"):
        found = rig.ready()
        assert found is not None
        assert found.webhook_id == expected
        rig.lanes.done(found)
    assert len(rig.lanes) == 0


def test_webhooks_that_failed_leave_connections_to_the_others() -> None:
    rig = Rig(retries=2)
    rig.add("a1", "b1", "c1", "d1")
    for _ in range(4):
        found = rig.ready()
        assert found is not None
        rig.lanes.again(found, 1.0)
    rig.clock.at = 5.0
    assert [rig.ready() is not None for _ in range(3)] == [True, True, False]
    rig.add("e1")
    found = rig.ready()
    assert found is not None
    assert found.webhook_id == "e1"


def test_a_pause_holds_all_and_the_end_wakes_those_who_wait() -> None:
    rig = Rig()
    rig.add("a1")
    rig.lanes.pause(7.0)
    assert rig.ready() is None
    rig.clock.at = 7.0
    assert rig.ready() is not None
    taken: list[WaitingWebhook | None] = []
    thread = threading.Thread(target=lambda: taken.append(rig.lanes.take()))
    thread.start()
    rig.lanes.close()
    thread.join(30)
    assert taken == [None]
    assert not rig.lanes.wait_for_room(100, 60)


def test_room() -> None:
    rig = Rig()
    rig.add("a1", "a2")
    assert rig.lanes.wait_for_room(3, 0)
    assert not rig.lanes.wait_for_room(2, 0.01)


@given(st.lists(st.sampled_from("abc"), max_size=30), st.lists(st.integers(0, 9), max_size=200), st.integers(1, 3))
def test_whatever_fails_each_recording_keeps_its_order_and_nothing_is_lost(
    recordings: list[str], choices: list[int], retries: int
) -> None:
    rig = Rig(retries=retries)
    numbers: dict[str, int] = defaultdict(int)
    for recording in recordings:
        numbers[recording] += 1
        rig.add(f"{recording}{numbers[recording]}")
    delivered: dict[str, list[int]] = defaultdict(list)
    in_delivery: list[WaitingWebhook] = []

    def step(choice: int) -> None:
        if choice < 5 and (found := rig.ready()) is not None:
            assert found.recording not in [one.recording for one in in_delivery]
            in_delivery.append(found)
            assert sum(bool(one.attempts) for one in in_delivery) <= retries
        elif in_delivery:
            one = in_delivery.pop(choice % len(in_delivery))
            if choice % 2:
                rig.lanes.again(one, rig.clock.at + choice)
            else:
                delivered[one.recording].append(int(one.webhook_id[1:]))
                rig.lanes.done(one)
        rig.clock.at += 1

    for choice in choices:
        step(choice)
    while len(rig.lanes):
        rig.clock.at += 10
        step(0)
        step(8)
    assert delivered == {recording: list(range(1, count + 1)) for recording, count in numbers.items()}
