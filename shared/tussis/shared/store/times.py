"""Times in UTC, whatever the time zone of the session.

The role, the database or the server sets the zone of a session. A client cannot set it permanently behind a pooler in
transaction mode.
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
    """Loads a ``timestamptz`` with psycopg's own loader and converts it to UTC."""

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        loader = psycopg.adapters.get_loader(_OID, Format.TEXT)
        assert loader is not None
        self._inner: Loader = loader(oid, context)

    def load(self, data: Buffer) -> datetime:
        """The time in UTC."""
        moment: datetime = self._inner.load(data)
        return moment.astimezone(UTC)


def use_utc(connection: psycopg.Connection[Any]) -> None:
    """Make the connection return times in UTC."""
    connection.adapters.register_loader(_TIMESTAMPTZ, UtcLoader)
