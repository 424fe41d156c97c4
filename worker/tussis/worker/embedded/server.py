"""The base class of the three embedded servers: ports, start, health check, stop."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from tussis.shared.errors import ServerFailed
from tussis.worker.embedded.folder import Folder
from tussis.worker.embedded.ports import free_ports, is_free
from tussis.worker.embedded.process import Command, GuardedProcess
from tussis.worker.embedded.room import naming_full_disk

#: Seconds that a server may take to start. A cold start takes two, and several times that on a busy or slow disk.
START_TIMEOUT_S = 60.0
#: Seconds between two health checks of a server that does not answer yet.
POLL_S = 0.03
#: The number of attempts to start a server, each with other ports.
PORT_ATTEMPTS = 5
#: Bytes. A larger log file is deleted at the next start.
LOG_LIMIT = 1_000_000


class EmbeddedServer(ABC):
    """One server. It can be killed and started again, with the same ports and data."""

    #: The name of the server in messages and in the folder.
    name: ClassVar[str]
    #: The number of ports that it needs.
    port_count: ClassVar[int] = 1

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._process: GuardedProcess | None = None
        self._ports: tuple[int, ...] = ()
        self._cancelled = threading.Event()

    @property
    def pid(self) -> int:
        """The server's process id.

        Raises:
            ServerFailed: it is not running.
        """
        if self._process is None:
            raise ServerFailed(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether its process runs. `wait_healthy` tests whether it answers."""
        return self._process is not None and self._process.running

    @property
    def port(self) -> int:
        """The port for its clients, on 127.0.0.1.

        Raises:
            ServerFailed: it was never started.
        """
        if not self._ports:
            raise ServerFailed(f"{self.name} was not started")
        return self._ports[0]

    @property
    def log(self) -> Path:
        """Its log file."""
        return self._folder.path / f"{self.name}.log"

    @property
    def home(self) -> Path:
        """The folder with its data."""
        return self._folder.path

    def start(self) -> None:
        """Start it and wait until it answers. A second start uses the same ports.

        Raises:
            NotInstalled: its wheel is missing.
            DiskFull: the disk is full.
            ServerFailed: it does not start, or does not answer in time.
        """
        if self.running:
            return
        self._collect()
        with naming_full_disk(self.home):
            self.prepare()
            if self._ports:
                self._start_on(self._ports)
            else:
                self._start_somewhere()

    def stop(self) -> None:
        """Stop it cleanly, with SIGKILL when that takes too long. Its data stays."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def kill(self) -> None:
        """Send SIGKILL, to simulate a crash; return when it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def wait_healthy(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until it answers an authenticated request.

        Raises:
            ServerFailed: it ended, or did not answer in time.
        """
        deadline = time.monotonic() + timeout_s
        while not self.answers():
            if not self.running:
                raise ServerFailed(f"{self.name} did not start: {self.last_error()}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} does not answer after {timeout_s:g} s; see {self.log}")
            if self._cancelled.wait(POLL_S):
                raise ServerFailed(f"the start of {self.name} was interrupted")

    def cancel(self) -> None:
        """Make a `start` in another thread fail soon."""
        self._cancelled.set()

    def ask_to_stop(self) -> None:
        """Begin a clean stop without waiting; `stop` waits for its end."""
        if self._process is not None:
            self._process.ask_to_stop()

    @abstractmethod
    def prepare(self) -> None:
        """Prepare its data and configuration. It is called before every start, while no process of the server runs."""

    @abstractmethod
    def command(self, ports: tuple[int, ...]) -> Command:
        """The command that runs it on these ports."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it answers an authenticated request now.

        Raises:
            ServerFailed: it answers with an error that does not pass.
        """

    def _start_somewhere(self) -> None:
        """Start with the stored ports; use other ports while another process has them."""
        remembered = self._folder.ports(self.name)
        usable = len(remembered) == self.port_count and all(map(is_free, remembered))
        ports = remembered if usable else free_ports(self.port_count)
        for _ in range(PORT_ATTEMPTS):
            try:
                self._start_on(ports)
            except ServerFailed:
                if all(map(is_free, ports)):  # the ports are not the cause
                    raise
                ports = free_ports(self.port_count)
            else:
                self._folder.keep_ports(self.name, ports)
                return
        raise ServerFailed(f"{self.name} did not start: its ports were in use {PORT_ATTEMPTS} times; see {self.log}")

    def _start_on(self, ports: tuple[int, ...]) -> None:
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.unlink()
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        self._ports = ports
        try:
            self._process = GuardedProcess(self.command(ports), self._folder.lock)
            self.wait_healthy()
        except BaseException:
            self.kill()
            raise

    def run_to_end(self, command: Command) -> None:
        """Run a helper program of the server under a guard, and wait for its end.

        Raises:
            ServerFailed: its exit code was not 0, or it still runs after START_TIMEOUT_S.
        """
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        if GuardedProcess(command, self._folder.lock).wait(START_TIMEOUT_S) != 0:
            raise ServerFailed(f"{command.name} failed: {self.last_error()}")

    def _collect(self) -> None:
        """Collect the exit code of a process that ended by itself, and forget the process."""
        if self._process is not None:
            self._process.wait(START_TIMEOUT_S)
            self._process = None

    def last_error(self) -> str:
        """The last line of its log since the start that names an error, else the last line; and the path of the log."""
        try:
            with self.log.open("rb") as log:
                log.seek(self._log_start)
                lines = log.read()[-20_000:].decode(errors="replace").splitlines()
        except OSError:
            lines = []
        lines = [line.strip() for line in lines if line.strip()]
        telling = [line for line in lines if any(word in line.lower() for word in ("fatal", "error", "not available"))]
        return f"{(telling or lines or ['no output'])[-1]}; see {self.log}"
