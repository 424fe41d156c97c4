"""The OpenAPI document: committed, complete, and the same form for every failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tussis.worker.gateway import openapi

COMMITTED = Path(__file__).parents[3] / "docs" / "openapi.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi.openapi_document()


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_the_committed_document_is_that_of_the_code() -> None:
    hint = "run: python -m tussis.worker.gateway.openapi > docs/openapi.json"
    assert COMMITTED.read_text(encoding="utf-8") == openapi.text(), hint
    json.loads(COMMITTED.read_text(encoding="utf-8"))


def test_every_route_below_v1_needs_a_token_and_describes_its_failures(document: dict[str, Any]) -> None:
    below = [item for item in operations(document) if item[1].startswith("/v1/")]
    assert len(below) > 10
    for method, path, operation in below:
        assert operation["security"] == [{"HTTPBearer": []}], (method, path)
        responses = operation["responses"]
        assert {"400", "401", "422", "429", "500", "503"} <= responses.keys(), (method, path)
        for status, response in responses.items():
            if int(status) >= 400:
                schema = response["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}, (method, path, status)
        assert operation["summary"]
        assert operation["description"]


def test_probes_need_no_token(document: dict[str, Any]) -> None:
    for path in ("/healthz/live", "/healthz/ready"):
        assert "security" not in document["paths"][path]["get"]
