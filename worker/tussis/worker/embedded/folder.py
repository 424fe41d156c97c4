"""The folder of the embedded servers: its lock for one owner at a time, its credentials, its ports."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

from tussis.shared.errors import DiskFull, ServerFailed
from tussis.worker.atomic import replace_file
from tussis.worker.embedded.room import FULL, disk_full

#: Seconds that the guards of a dead owner may take to stop its servers: the sum of their time limits.
DEPARTURE_TIMEOUT_S = 40.0


@dataclass(frozen=True)
class Credentials:
    """Random passwords. They are made once for a folder and stored in it, readable by its owner only."""

    postgres_password: str
    broker_password: str
    s3_access_key: str
    s3_secret_key: str

    @classmethod
    def new(cls) -> Self:
        """Make new credentials, in hexadecimal: they need no quoting in URLs and configuration files."""
        return cls(
            postgres_password=secrets.token_hex(16),
            broker_password=secrets.token_hex(16),
            s3_access_key=secrets.token_hex(10).upper(),
            s3_secret_key=secrets.token_hex(20),
        )


class Folder:
    """A folder locked by this process until `release`, and then by its servers until they have stopped.

    Args:
        path: the folder; created if it does not exist.

    Raises:
        DiskFull: the disk of the folder is full.
        ServerFailed: the folder cannot be used, or another process uses it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock = os.open(self.path / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(self.path, error) from error
        try:
            self._acquire()
            self.credentials = self._credentials()
        except OSError as error:
            os.close(self.lock)
            raise _unusable(self.path, error) from error
        except BaseException:
            os.close(self.lock)
            raise

    def release(self) -> None:
        """Release this process's lock. The servers hold the same lock, so the next owner waits until they stop."""
        os.close(self.lock)

    def subfolder(self, name: str) -> Path:
        """A subfolder with mode 0700, created if it does not exist.

        Raises:
            DiskFull: the disk of the folder is full.
            ServerFailed: it cannot be created, or this process may not use it.
        """
        path = self.path / name
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            os.listdir(path)
            if not os.access(path, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise _unusable(path, error) from error
        return path

    def ports(self, name: str) -> tuple[int, ...]:
        """The stored ports of this server; empty when there are none or the file is invalid."""
        try:
            ports = json.loads((self.path / f"{name}.ports").read_text())
        except (OSError, ValueError):
            return ()
        if isinstance(ports, list) and all(isinstance(port, int) and 0 < port < 65_536 for port in ports):
            return tuple(ports)
        return ()

    def keep_ports(self, name: str, ports: tuple[int, ...]) -> None:
        """Store the ports. The next run uses the same ports if they are free."""
        replace_file(self.path / f"{name}.ports", json.dumps(ports).encode(), mode=0o600)

    def _acquire(self) -> None:
        deadline = time.monotonic() + DEPARTURE_TIMEOUT_S
        while True:
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                owner = os.pread(self.lock, 32, 0).decode(errors="replace").strip()
                # If the owner is dead, its guards hold the lock until they have stopped the servers: wait for them.
                if time.monotonic() > deadline or (owner.isdecimal() and _alive(int(owner))):
                    raise ServerFailed(
                        f"{self.path} is in use by process {owner or '(unknown)'}: stop it, or choose another folder"
                    ) from None
            time.sleep(0.05)
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, f"{os.getpid()}\n".encode(), 0)

    def _credentials(self) -> Credentials:
        file = self.path / "credentials.json"
        try:
            text = file.read_text()
        except FileNotFoundError:
            if (self.path / "postgres").exists():
                raise ServerFailed(
                    f"{file} is missing, and its data exists: remove {self.path} to start again"
                ) from None
            credentials = Credentials.new()
            replace_file(file, json.dumps(asdict(credentials)).encode(), mode=0o600)
            return credentials
        try:
            stored = json.loads(text)
            return Credentials(**{field.name: str(stored[field.name]) for field in fields(Credentials)})
        except (ValueError, KeyError, TypeError) as error:
            raise ServerFailed(f"{file} is damaged: remove {self.path} to start again") from error


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _unusable(path: Path, error: OSError) -> ServerFailed | DiskFull:
    if error.errno in FULL:
        return disk_full(path)
    return ServerFailed(
        f"cannot store the data of the embedded servers in {path}: {error.strerror}; choose a writable folder"
    )
