"""The schema of the embedded database, and the login with which workers, the gateway and shells use it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from tussis.shared.store.migrate import make_login, upgrade
from tussis.shared.store.rights import Role
from tussis.worker.embedded.servers import Endpoints

_LOGIN: Final = "worker"


def prepare_database(endpoints: Endpoints) -> None:
    """Migrate the database, and make the login of the workers. Raises the errors of the store."""
    upgrade(endpoints.database_url)
    make_login(endpoints.database_url, _LOGIN, Role.WORKER, _password(endpoints))


def worker_endpoints(endpoints: Endpoints) -> Endpoints:
    """The same addresses with the login of the workers on the database."""
    parts = urlsplit(endpoints.database_url)
    login = f"{_LOGIN}:{_password(endpoints)}@{parts.hostname}:{parts.port}"
    return replace(endpoints, database_url=parts._replace(netloc=login).geturl())


def _password(endpoints: Endpoints) -> str:
    """Made from the owner's password, which cannot be found from it. Folders of earlier versions need no new file."""
    owner = urlsplit(endpoints.database_url).password or ""
    return hashlib.blake2b(_LOGIN.encode(), key=owner.encode(), digest_size=24).hexdigest()
