"""An owner of embedded servers that tests kill: ``python -m tests.support.server_owner FOLDER ENDING``.

It writes ``{"event": "started", ...}`` once the servers answer, with the pids of all processes, the ports, and the
socket files of the S3 server.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import psutil

from tussis.shared.errors import TussisError
from tussis.worker.embedded.servers import Servers


def announce(servers: Servers) -> None:
    """Print one JSON line for the test."""
    handles = (servers.postgres, servers.broker, servers.s3)
    started = {
        "event": "started",
        "endpoints": vars(servers.endpoints),
        "pids": {handle.name: handle.pid for handle in handles},
        "uids": {handle.name: psutil.Process(handle.pid).uids().real for handle in handles},
        "ports": [handle.port for handle in handles],
        "processes": [process.pid for process in psutil.Process().children(recursive=True)],
        # Found by the server that listens on them, not by name: other programs have files of the same kind in /tmp.
        "sockets": [one.laddr for one in psutil.Process(servers.s3.pid).net_connections("unix") if one.laddr],
    }
    print(json.dumps(started), flush=True)  # noqa: T201  # the test reads it


def main(folder: Path, ending: str) -> None:
    """Start the servers, then do ENDING: ``wait``, ``leave``, ``raise``, or ``fork`` (a child keeps our files open)."""
    with Servers(folder) as servers:
        if ending == "fork" and os.fork() == 0:
            signal.pause()
        announce(servers)
        if ending == "raise":
            raise RuntimeError("on purpose")
        if ending != "leave":
            while True:
                time.sleep(60)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2])
    except TussisError as error:
        sys.exit(f"tussis: {error}")
