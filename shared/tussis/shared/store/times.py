"""Times in UTC, whatever zone the session is in.

The zone of a session is the role's, the database's or the server's, and a pooler in transaction mode lets nobody set it
for good.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.abc import AdaptContext, Buffer, Loader
from psycopg.adapt import Loader as BaseLoader
from psycopg.pq import Format

_TIMESTAMPTZ = "timestamptz"
_OID = psycopg.adapters.types[_TIMESTAMPTZ].oid


class UtcLoader(BaseLoader):
    """A ``timestamptz`` as psycopg reads it, in UTC."""

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        loader = psycopg.adapters.get_loader(_OID, Format.TEXT)
        assert loader is not None
        self._inner: Loader = loader(oid, context)

    def load(self, data: Buffer) -> datetime:
        """The moment in UTC."""
        moment: datetime = self._inner.load(data)
        return moment.astimezone(UTC)


def use_utc(connection: psycopg.Connection[Any]) -> None:
    """Let the connection return times in UTC."""
    connection.adapters.register_loader(_TIMESTAMPTZ, UtcLoader)
