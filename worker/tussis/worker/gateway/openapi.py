"""The OpenAPI document of the gateway: ``python -m tussis.worker.gateway.openapi > docs/openapi.json``."""

from __future__ import annotations

import json
import sys
from typing import Any

from tussis.shared.settings import Settings
from tussis.worker.gateway.app import create_app
from tussis.worker.gateway.services import open_services


def openapi_document() -> dict[str, Any]:
    """The document, with every route that a setting can turn on. It needs no server."""
    settings = Settings.model_construct(
        **{name: field.get_default(call_default_factory=True) for name, field in Settings.model_fields.items()}
        | {"broker_url": "redis://localhost:6379/0", "serve_without_tokens": True}
    )
    with open_services(settings) as services:
        return create_app(settings, services).openapi()


def text() -> str:
    """The document as text."""
    return json.dumps(openapi_document(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
