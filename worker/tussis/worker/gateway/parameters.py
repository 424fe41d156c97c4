"""Refuses parameters of the query that a route does not have: a misspelt option would be ignored without notice."""

from __future__ import annotations

import difflib

from fastapi import Request

from tussis.shared.errors import RequestInvalid


async def check_parameters(request: Request) -> None:
    """Dependency: raises :class:`RequestInvalid` for a parameter that the OpenAPI document does not have."""
    if not request.query_params:
        return
    route, method = request.scope["route"], request.method.lower()
    operation = request.app.openapi()["paths"].get(route.path_format, {}).get(method)
    if operation is None:  # the route is not in the document
        return
    known = sorted(one["name"] for one in operation.get("parameters", ()) if one["in"] == "query")
    for name in request.query_params:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"use {', '.join(known)}" if known else "it has none"
            raise RequestInvalid(f"unknown parameter {name[:80]!r} of {route.path_format}: {hint}")
