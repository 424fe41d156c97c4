"""A PgBouncer in transaction mode in front of the test's database, with its defaults and few server sessions."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from tests.support.processes import Spawn
from tests.support.servers import server_folder
from tests.support.waiting import wait_until
from tussis.worker.embedded.ports import free_ports

#: Server sessions for all clients. A worker has more children, so the children share the sessions.
SESSIONS = 2
#: Debian installs PgBouncer in a folder that is on the path of administrators only.
_PATHS = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))

CONFIGURATION = """\
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
logfile = {folder}/log
pidfile = {folder}/pid
pool_mode = transaction
default_pool_size = {sessions}
"""


@pytest.fixture
def pooled_url(store_url: str, spawn: Spawn) -> Iterator[str]:
    """The migrated, empty database, behind the pooler."""
    binary = shutil.which("pgbouncer", path=_PATHS)
    if binary is None:
        pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
    parts = urlsplit(store_url)
    (port,) = free_ports(1)
    with server_folder() as folder:
        configuration = folder / "pgbouncer.ini"
        configuration.write_text(
            CONFIGURATION.format(host=parts.hostname, port=parts.port, own_port=port, folder=folder, sessions=SESSIONS)
        )
        (folder / "users").write_text(f'"{parts.username}" "{parts.password}"\n')
        # PgBouncer refuses to run as root.
        account = ["-u", "nobody"] if os.geteuid() == 0 else []
        if account:
            folder.chmod(0o777)
        process = spawn(*account, str(configuration), program=binary)
        netloc = f"{parts.username}:{parts.password}@127.0.0.1:{port}"
        url = urlunsplit(parts._replace(netloc=netloc))

        def answers() -> bool:
            assert process.running, process.text
            try:
                psycopg.connect(url, connect_timeout=5).close()
            except psycopg.OperationalError:
                return False
            return True

        wait_until(answers, 30, "the pooler to answer")
        yield url
        process.end()
