"""The gateway stores no recording of a person, or under a key, that was forgotten."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.gateway import Gateway
from tests.support.store import forget
from tussis.shared.forgetting import Target, object_target, prefix_target, subject_target

SUBJECT = "P-0117"
LARGE = bytes(9 * 2**20)
"""More than one part of an upload."""


def refused(gateway: Gateway, method: str, path: str, **request: Any) -> None:
    answer = gateway.client.request(method, path, **request)
    assert (answer.status_code, answer.json()["error"]["class"]) == (422, "forgotten"), answer.text
    assert (gateway.uploads(), gateway.unfinished()) == ([], [])
    assert gateway.services.ledger.open_jobs() == 0


@pytest.mark.parametrize("prefix", [False, True])
def test_an_upload_to_a_forgotten_key_is_refused(gateway_with_store: Gateway, store_url: str, prefix: bool) -> None:
    gateway = gateway_with_store
    start = f"s3://{gateway.bucket}/uploads/anna/"
    target: Target = prefix_target(start) if prefix else object_target(f"{start}1.wav")
    forget(store_url, target)

    refused(gateway, "PUT", "/v1/recordings/anna/1.wav", content=b"x")

    other = gateway.client.put(f"/v1/recordings/{'bert' if prefix else 'anna'}/2.wav", content=b"x")
    assert other.status_code == 202, other.text


@pytest.mark.parametrize("content", [b"x", LARGE], ids=["small", "large"])
def test_an_upload_of_a_forgotten_person_is_refused(
    gateway_with_store: Gateway, store_url: str, content: bytes
) -> None:
    gateway = gateway_with_store
    forget(store_url, subject_target(SUBJECT))
    metadata = {"metadata": json.dumps({"subject": SUBJECT})}
    fields = f'--B\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{metadata["metadata"]}\r\n'.encode()
    audio = b'--B\r\nContent-Disposition: form-data; name="audio"; filename="a"\r\n\r\n' + content + b"\r\n"
    form = {"Content-Type": "multipart/form-data; boundary=B"}

    refused(gateway, "POST", "/v1/recordings", content=content, params=metadata)
    refused(gateway, "PUT", "/v1/recordings/a.wav", content=content, params=metadata)
    refused(gateway, "POST", "/v1/recordings", content=fields + audio + b"--B--\r\n", headers=form)
    refused(gateway, "POST", "/v1/recordings", content=audio + fields + b"--B--\r\n", headers=form)

    other = gateway.client.post("/v1/recordings", content=b"x", params={"metadata": '{"subject": "P-2"}'})
    assert other.status_code == 202, other.text
