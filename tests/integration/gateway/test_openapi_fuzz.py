"""Requests made up from the OpenAPI document, valid and wrong ones, against a gateway on real servers."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis import GenerationMode

from tests.support.gateway import HEADERS, gateway_settings, serving
from tests.support.servers import Bucket
from tests.support.store import a_job, a_refusal
from tussis.worker.gateway.openapi import openapi_document

#: What the document cannot say: which texts are names of batches or URIs, and which resources a request makes.
EXCLUDED = [
    schemathesis.checks.positive_data_acceptance,
    schemathesis.checks.ensure_resource_availability,
    schemathesis.checks.use_after_free,
    schemathesis.checks.object_level_authorization,
    # The tests send their token in place of a missing one.
    schemathesis.checks.missing_required_header,
    schemathesis.checks.negative_data_rejection,
]
#: A stream that does not end.
STREAM = ("GET", "/v1/outcomes")
#: A route that waits for an answer. There is no worker, so that its 503 is right.
WAITS = ("POST", "/api/detect-cough")
NO_SERVER_ERROR = schemathesis.checks.not_a_server_error
#: Bytes. uvicorn closes the connection of a request with a longer head than 64 KiB, before the gateway sees it.
LONGEST_URL = 16_384
SETTINGS = hypothesis.settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def wrong_json_is_refused(context: Any, response: Any, case: Any) -> None:
    """A check: a body that is not as the document says is no success."""
    wrong = any(part.value == "body" and info.mode.is_negative for part, info in case.meta.components.items())
    if wrong and case.media_type == "application/json":
        assert response.status_code >= 400, response.text


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_the_gateway_keeps_to_its_document(
    mode: GenerationMode, s3_environment: None, broker_url: str, store_url: str, bucket: Bucket
) -> None:
    document = openapi_document()
    schema = schemathesis.openapi.from_dict(document)
    settings = gateway_settings(
        broker_url, bucket.name, database_url=store_url, serve_requests_per_s=100_000.0, serve_old_wait_s=0.1
    )
    tried = 0
    with serving(settings, bucket.name) as gateway:
        gateway.services.need_store().refuse(a_refusal(a_job()))
        for path, methods in document["paths"].items():
            for method in methods:
                if (method.upper(), path) == STREAM:
                    continue
                operation = schema[path][method]

                @SETTINGS
                @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
                def check(case: Any) -> None:
                    arguments = case.as_transport_kwargs(base_url=gateway.url)
                    request = requests.Request(case.method, arguments["url"], params=arguments.get("params"))
                    hypothesis.assume(len(request.prepare().url or "") <= LONGEST_URL)
                    case.call_and_validate(
                        base_url=gateway.url,
                        headers=HEADERS,
                        excluded_checks=EXCLUDED + [NO_SERVER_ERROR] * ((case.method, case.path) == WAITS),
                        additional_checks=[wrong_json_is_refused],
                        timeout=60,
                    )

                try:
                    check()
                except hypothesis.errors.Unsatisfiable:  # the operation has nothing that could be wrong
                    assert mode is GenerationMode.NEGATIVE
                    continue
                tried += 1
    assert tried > (10 if mode is GenerationMode.POSITIVE else 5)
