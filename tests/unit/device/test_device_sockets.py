"""The device process's socket in the run directory."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from tussis.worker.device import sockets, wire
from tussis.worker.device.wire import Gone, Reply, ReplyKind


@pytest.mark.parametrize("name", ["short", "long" * 50])
def test_children_find_the_socket_however_deep_the_folder_lies(tmp_path: Path, name: str) -> None:
    """Given a run directory whose path is longer than a socket's address, when a child connects, then it gets in."""
    folder = tmp_path / name
    folder.mkdir()
    with pytest.raises(Gone):
        sockets.connect(folder)
    with sockets.listen(folder), sockets.listen(folder) as second, sockets.connect(folder) as child:
        inside, _ = second.accept()
        with inside:
            inside.setblocking(False)
            wire.send_reply(inside, Reply(5, ReplyKind.BEGUN))
            assert wire.receive_reply(child) == Reply(5, ReplyKind.BEGUN)
            assert sockets.peer_pid(child) == os.getpid()
    with pytest.raises(Gone):
        sockets.connect(folder)


def test_a_listener_that_accepts_nothing_is_left(tmp_path: Path) -> None:
    """Given a listener whose queue is full, when a child connects, then it is told so, and does not wait for ever."""
    with ExitStack() as stack:
        stack.enter_context(sockets.listen(tmp_path)).listen(0)

        def connect_often() -> None:
            for _ in range(10):
                stack.enter_context(sockets.connect(tmp_path))

        with pytest.raises(Gone):
            connect_often()
