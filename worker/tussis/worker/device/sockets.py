"""The socket of the device process in the run directory: listening, connecting, and the other end's process id."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import Final

from tussis.worker.device.wire import LOOK_S, Gone

#: The socket's name in the run directory.
SOCKET: Final = "device.sock"
#: The longest path that fits into a socket address (sun_path has 108 bytes, including a closing zero).
_LONGEST_PATH: Final = 107
#: The kernel's ``struct ucred``: pid, uid, gid.
_CREDENTIALS: Final = struct.Struct("3i")


def listen(folder: Path) -> socket.socket:
    """A listening socket in ``folder``. It replaces an earlier socket atomically."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    draft = f".{SOCKET}.{os.getpid()}"
    with _Address(folder, draft) as address:
        server.bind(address.path)
    server.listen(256)
    (folder / draft).replace(folder / SOCKET)
    return server


def connect(folder: Path) -> socket.socket:
    """Connect to the device process. Raises :class:`Gone` when none listens, or too many connections wait for it."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Without a timeout, connecting waits for ever while the listener's queue is full.
    connection.settimeout(LOOK_S)
    try:
        with _Address(folder, SOCKET) as address:
            connection.connect(address.path)
    except OSError as error:
        connection.close()
        raise Gone(f"no device process listens in {folder}: {error.strerror or error}") from error
    return connection


def peer_pid(connection: socket.socket) -> int:
    """The process id of the listener at the other end."""
    pid, _, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(pid)


class _Address:
    """A path of a socket that fits into a socket address, also when the folder's path is long."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = str(folder / name)
        self._folder: int | None = None
        if len(os.fsencode(self.path)) > _LONGEST_PATH:
            self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self.path = f"/proc/self/fd/{self._folder}/{name}"

    def __enter__(self) -> _Address:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            os.close(self._folder)
