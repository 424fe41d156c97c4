"""The pool of children: what it does with a message that a child has, but has not yet begun."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from kombu.asynchronous import Hub, set_event_loop

from tests.support.waiting import wait_until
from tussis.worker.parent.pool import Pool


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    set_event_loop(hub)
    yield hub
    hub.close()
    set_event_loop(None)


def test_a_stop_waits_for_a_message_that_a_child_has_not_yet_begun(hub: Hub) -> None:
    outcomes: list[Any] = []
    pool = Pool.Pool(processes=1, threads=False, synack=False)
    pool.register_with_event_loop(hub)
    loop = hub.loop
    wait_until(lambda: next(loop) is None and bool(pool._fileno_to_inq), 20, "a child that takes messages")
    for reader in list(hub.readers):
        hub.remove_reader(reader)  # From now on the parent hears nothing from the child.
    job = pool.apply_async(time.sleep, (0.2,), callback=outcomes.append, error_callback=outcomes.append)
    wait_until(lambda: next(loop) is None and job._write_to is not None, 20, "a message in the child's pipe")
    assert not job._accepted

    pool.flush()
    pool.close()
    pool.join()

    assert outcomes == [None], "Celery's own pool forgets the message"
