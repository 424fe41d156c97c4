"""A database connection that does not wait for ever, and a look at one before it is used.

The server ends a statement that takes too long, and the kernel ends a connection whose peer is gone. Neither helps
against a server that is there and says nothing (stopped, swapping, behind a proxy that hangs): libpq waits without end.
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

#: Seconds, for the server to take a cancellation.
CANCEL_TIMEOUT_S = 1.0


class PatientConnection(psycopg.Connection[Any]):
    """A connection on which no wait for an answer lasts longer than :attr:`patience_s` seconds.

    It then cancels what the server still does, closes and raises psycopg's OperationalError, and the pool makes a new
    one. Cancelled, because the server would wait on for a lock that nobody needs any more.
    """

    patience_s = float("inf")

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        return super().wait(self._bounded(gen), *args, **kwargs)

    def _bounded(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """``gen``, watched: psycopg resumes it at least every 0.1 s, with 0 for "nothing came"."""
        deadline = time.monotonic() + self.patience_s
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > deadline:
                    self._give_up()
                    raise psycopg.OperationalError(f"no answer within {self.patience_s:g} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value

    def _give_up(self) -> None:
        # A server that says nothing at all does not take the cancellation either.
        with suppress(psycopg.Error):
            self.cancel_safe(timeout=CANCEL_TIMEOUT_S)
        self.pgconn.finish()


def use_live_connections(engine: Engine) -> None:
    """Let the pool replace a connection that the server has closed meanwhile, instead of giving it out.

    What the server says unasked is that it goes, and that has arrived: looking costs no question to it, as SQLAlchemy's
    ``pool_pre_ping`` does. A connection that breaks in silence, or in this very moment, is found by the statement.
    """

    @event.listens_for(engine, "checkout")
    def look(connection: PatientConnection, record: Any, proxy: Any) -> None:
        if connection.closed or _has_news(connection.pgconn.socket):
            raise DisconnectionError("the server has closed the connection")


def _has_news(socket: int) -> bool:
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))
