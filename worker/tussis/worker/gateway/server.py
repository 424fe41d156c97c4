"""Runs the gateway with uvicorn until SIGTERM or Ctrl-C."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from types import FrameType

import uvicorn

from tussis.shared.errors import SettingsInvalid
from tussis.shared.settings import Settings
from tussis.worker import logs
from tussis.worker.gateway.app import create_app
from tussis.worker.gateway.recordings import upload_prefix
from tussis.worker.gateway.services import Services, open_services
from tussis.worker.gateway.unfinished import UnfinishedUploads

_log = logs.get("gateway")

#: Connections that are open at the same time. Further ones are answered 503.
_CONNECTIONS = 1000


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises :class:`SettingsInvalid` for wrong settings and a taken port."""
    with ExitStack() as stack:
        services = stack.enter_context(open_services(settings))
        listener = _listen(settings)
        stack.callback(listener.close)
        if settings.upload_prefix:
            prefix = upload_prefix(services)
            stack.callback(UnfinishedUploads(services, prefix).close)
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
        _Server(config, services).run(sockets=[listener])
        _log.info("gateway_stopped")


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say so."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            tokens = self._services.tokens
            _log.info("gateway_ready", host=host, port=port, tokens=0 if tokens is None else len(tokens))

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
