"""The account that PostgreSQL runs as. PostgreSQL refuses to run as root."""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

#: The uid and gid of "nobody" on Linux, for systems without that entry.
OVERFLOW_ID = 65_534


@dataclass(frozen=True)
class Account:
    """A user of this machine, by number."""

    uid: int
    gid: int

    def can_enter(self, folder: Path) -> bool:
        """Whether a process of this account can enter this folder. A ``cd`` as that account tests it."""
        return self._succeeds(["/bin/sh", "-c", 'cd "$0"', str(folder)])

    def can_run(self, binary: Path) -> bool:
        """Whether this account can run the binary. The test runs it with ``--version``."""
        return self._succeeds([str(binary), "--version"])

    def _succeeds(self, argv: list[str]) -> bool:
        try:
            ended = subprocess.run(
                argv,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                user=self.uid,
                group=self.gid,
                extra_groups=[],
                timeout=30,
                check=False,
            )
        except (OSError, subprocess.SubprocessError):
            return False
        return ended.returncode == 0


def database_account(data: Path) -> Account | None:
    """The account to run PostgreSQL as; None for the account of this process.

    For root it is the first of these that exists and is not root: the owner of the data folder, the user who called
    sudo, ``nobody``.
    """
    if os.geteuid() != 0:
        return None
    if data.is_dir() and (owner := data.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    caller = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if caller[0].isdecimal() and int(caller[0]) != 0 and caller[1].isdecimal():
        return Account(int(caller[0]), int(caller[1]))
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return Account(OVERFLOW_ID, OVERFLOW_ID)
    return Account(nobody.pw_uid, nobody.pw_gid)
