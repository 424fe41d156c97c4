"""When a consumer that takes nothing is starving, and when it only has nothing to do."""

from __future__ import annotations

from tussis.worker.parent.starving import Starving


def test_it_starves_only_with_messages_waiting_children_free_and_none_begun() -> None:
    starving = Starving()
    starving.look(waiting=5, free=1, begun=0, now=10.0)  # the first look sees no difference yet
    assert starving.since is None
    starving.look(waiting=5, free=1, begun=0, now=15.0)
    starving.look(waiting=9, free=1, begun=0, now=20.0)
    assert starving.since == 15.0
    starving.look(waiting=9, free=1, begun=1, now=25.0)
    assert starving.since is None
    starving.look(waiting=9, free=0, begun=1, now=30.0)
    assert starving.since is None
    starving.look(waiting=0, free=2, begun=1, now=35.0)
    assert starving.since is None
