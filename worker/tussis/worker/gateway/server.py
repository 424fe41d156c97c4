"""Runs the gateway with uvicorn until SIGTERM or Ctrl-C."""

from __future__ import annotations

import socket
from types import FrameType

import uvicorn

from tussis.shared.errors import SettingsInvalid
from tussis.shared.settings import Settings
from tussis.worker import logs
from tussis.worker.gateway.app import create_app
from tussis.worker.gateway.services import Services, open_services

_log = logs.get("gateway")

#: Connections that are open at the same time. Further ones are answered 503.
_CONNECTIONS = 1000


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises :class:`SettingsInvalid` for wrong settings and a taken port."""
    with open_services(settings) as services:
        listener = _listen(settings)
        config = uvicorn.Config(
            create_app(settings, services),
            log_config=None,
            access_log=False,  # its lines would have keys and query strings; requests are counted instead
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=max(1, round(settings.serve_stop_s)),
            timeout_keep_alive=30,
            proxy_headers=False,
        )
        host, port = listener.getsockname()[:2]
        _log.info(
            "gateway_ready", host=host, port=port, tokens=None if services.tokens is None else len(services.tokens)
        )
        _Server(config, services).run(sockets=[listener])
        _log.info("gateway_stopped")


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at the first signal. Streams end, requests are finished. A second signal ends them."""
        self._services.stop()
        self.force_exit = self.should_exit
        self.should_exit = True


def _listen(settings: Settings) -> socket.socket:
    host, port = settings.serve_host, settings.serve_port
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise SettingsInvalid(
            f"cannot listen on {host}:{port} ({error.strerror}): set TUSSIS_SERVE_HOST and TUSSIS_SERVE_PORT"
        ) from None
    return listener
