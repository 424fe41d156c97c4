"""Logins of the database with the rights of a role."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.support.store import execute
from tussis.shared.store import migrate
from tussis.shared.store.rights import Role


@contextmanager
def role_login(url: str, role: Role) -> Iterator[str]:
    """Make a login with the rights of the role; yields the URL of the database with it."""
    name = f"test_{uuid.uuid4().hex}"
    migrate.make_login(url, name, role, "it's secret")
    parts = urlsplit(url)
    try:
        yield parts._replace(netloc=f"{name}:it%27s%20secret@{parts.hostname}:{parts.port}").geturl()
    finally:
        execute(url, f"DROP ROLE {name}")
