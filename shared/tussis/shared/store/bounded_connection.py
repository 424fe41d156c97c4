"""A database connection with a time limit for every wait, and a check of a connection before its use.

The server ends a statement that takes too long, and the kernel ends a connection whose peer is gone. Neither helps if
the server is reachable but does not answer (stopped, swapping, behind a proxy that hangs). libpq then waits for ever.
"""

from __future__ import annotations

import select
import time
from collections.abc import Generator
from contextlib import suppress
from typing import Any

import psycopg
from sqlalchemy import Engine, event
from sqlalchemy.exc import DisconnectionError

#: Seconds for the server to accept a cancellation.
CANCEL_TIMEOUT_S = 1.0


class BoundedConnection(psycopg.Connection[Any]):
    """A connection on which no wait for an answer lasts longer than :attr:`answer_timeout_s` seconds.

    After that time it cancels the statement, closes itself and raises psycopg's OperationalError. The pool then opens a
    new connection. Without the cancellation, the server could continue to wait for a lock that is no longer needed.
    """

    answer_timeout_s = float("inf")

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        return super().wait(self._bounded(gen), *args, **kwargs)

    def _bounded(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """``gen`` with a deadline. psycopg resumes it at least every 0.1 s, with 0 if no data came."""
        deadline = time.monotonic() + self.answer_timeout_s
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > deadline:
                    self._give_up()
                    raise psycopg.OperationalError(f"no answer within {self.answer_timeout_s:g} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value

    def _give_up(self) -> None:
        # A server that does not answer does not accept the cancellation either.
        with suppress(psycopg.Error):
            self.cancel_safe(timeout=CANCEL_TIMEOUT_S)
        self.pgconn.finish()


def use_live_connections(engine: Engine) -> None:
    """Make the pool replace a connection that the server has closed.

    Data on an idle connection is the server's notice that it closes the connection. The check reads only the local
    socket, so it costs no round trip, unlike SQLAlchemy's ``pool_pre_ping``. It does not find a connection that broke
    without notice or that breaks after the check. The next statement then fails.
    """

    @event.listens_for(engine, "checkout")
    def check(connection: BoundedConnection, record: Any, proxy: Any) -> None:
        if connection.closed or _has_data(connection.pgconn.socket):
            raise DisconnectionError("the server has closed the connection")


def _has_data(socket: int) -> bool:
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))
