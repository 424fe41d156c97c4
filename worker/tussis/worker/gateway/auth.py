"""Who sends a request: the name of its token, which is also limited in its rate."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from tussis.shared.errors import TokenRefused
from tussis.worker.gateway.errors import documented
from tussis.worker.gateway.services import Services

#: The caller if the gateway works without tokens.
NOBODY: Final = "nobody"

#: Reads the token of a request.
bearer = HTTPBearer(auto_error=False, description="a token of TUSSIS_SERVE_TOKENS or TUSSIS_SERVE_TOKENS_FILE")

#: The statuses of failures of every route that needs a token, for the OpenAPI document.
STATUSES: Final = (400, 401, 422, 429, 500, 503)
FAILURES: Final = documented(*STATUSES)


async def caller(request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> str:
    """Dependency: the name of the caller's token. Raises :class:`TokenRefused` and :class:`RateExceeded`.

    The name is ``nobody`` if the gateway works without tokens.
    """
    services: Services = request.app.state.services
    name: str | None = NOBODY
    if services.tokens is not None:
        name = None if given is None else services.tokens.name_of(given.credentials)
    if name is None:
        raise TokenRefused("the request has no valid token: send the header Authorization: Bearer TOKEN")
    request.scope["tussis.caller"] = name
    services.rates.take(name)
    return name


Caller = Annotated[str, Depends(caller)]
