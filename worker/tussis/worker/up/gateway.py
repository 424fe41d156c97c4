"""The gateway of ``tussis up --serve``."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from tussis.worker.embedded.ports import free_ports
from tussis.worker.embedded.servers import Servers
from tussis.worker.local.database import worker_endpoints
from tussis.worker.local.running_program import RunningProgram
from tussis.worker.local.running_worker import event_of
from tussis.worker.local.surroundings import tussis_command, write_whole

_STOP_S: Final = 10


class LocalGateway(RunningProgram):
    """A gateway beside the servers, on a free port of 127.0.0.1. Its one token is in :attr:`tokens_file`.

    Raises :class:`ServerFailed` and :class:`NotInstalled`.
    """

    def __init__(self, servers: Servers, data: Path, upload_prefix: str) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.tokens_file = data / "serve-tokens"
        if not self.tokens_file.exists():
            write_whole(self.tokens_file, f"local:{secrets.token_hex(24)}\n".encode(), mode=0o600)
        super().__init__(
            servers,
            data,
            "gateway",
            (tussis_command(), "serve", "--port", str(port), "--upload-prefix", upload_prefix),
            environment={
                **worker_endpoints(servers.endpoints).environment(),
                "TUSSIS_SERVE_TOKENS_FILE": str(self.tokens_file),
                "TUSSIS_SERVE_STOP_S": str(_STOP_S),
            },
            stop_s=_STOP_S + 10.0,
            death_signal="SIGTERM",
        )

    def wait_ready(self) -> None:
        """Wait until it accepts requests. Raises :class:`ServerFailed`."""
        self.wait(lambda: any(event_of(line).get("event") == "gateway_ready" for line in self.lines()))
