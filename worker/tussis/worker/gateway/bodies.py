"""Limits of request bodies: their size, and the time in which they arrive."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tussis.shared.errors import BodySlow, BodyTooLarge, RequestInvalid

#: Largest body of a request that is no upload, bytes.
MAX_JSON_BYTES: Final = 4 * 1024 * 1024
#: Bytes that a multipart body may have beside the recording.
MULTIPART_EXTRA: Final = 1024 * 1024

_KEY: Final = "tussis.body"


@dataclass
class BodyLimit:
    """The largest number of bytes of one request's body. A dependency may raise it before the body is read."""

    max_bytes: int = MAX_JSON_BYTES


class BodyLimits:
    """ASGI middleware: raises :class:`BodyTooLarge` and :class:`BodySlow` where the body of a request is read."""

    def __init__(self, app: ASGIApp, idle_s: float, total_s: float) -> None:
        self._app = app
        self._idle_s = idle_s
        self._total_s = total_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = scope[_KEY] = BodyLimit()
        declared = _declared(scope)
        ends = time.monotonic() + self._total_s
        got = 0
        over = False

        async def limited() -> Message:
            nonlocal got, over
            if over:
                return await receive()
            if declared is not None:
                if declared < 0:
                    raise RequestInvalid("the header Content-Length is not a number")
                _check(declared, limit)
            left_s = min(self._idle_s, ends - time.monotonic())
            try:
                message = await asyncio.wait_for(receive(), max(0.0, left_s))
            except TimeoutError:
                over = True
                raise BodySlow(
                    f"the body did not arrive in time: {got} bytes came; at most {self._idle_s:g} s may pass without "
                    f"any, and {self._total_s:g} s in all"
                ) from None
            over = message["type"] != "http.request" or not message.get("more_body", False)
            got += len(message.get("body", b""))
            _check(got, limit)
            return message

        await self._app(scope, limited, send)


def allow_upload(request: Request) -> None:
    """Dependency of routes that receive a recording: the limit is that of a recording."""
    limit: BodyLimit = request.scope[_KEY]
    limit.max_bytes = request.app.state.services.settings.max_bytes + MULTIPART_EXTRA


def _check(size: int, limit: BodyLimit) -> None:
    if size > limit.max_bytes:
        raise BodyTooLarge(f"the body has more than {limit.max_bytes} bytes: send less at a time")


def _declared(scope: Scope) -> int | None:
    """The value of Content-Length. -1 if it is not a number, None if there is none."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else -1
    return None
