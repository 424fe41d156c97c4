"""``docs/vectors.json`` for producers in other languages: job ids and envelopes."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

import pytest

from tests.support.processes import ROOT
from tests.support.tables import code, table
from tussis.shared.messages import JOB_NAMESPACE, envelope, job_id_for, parse_message_text
from tussis.shared.queues import list_key

VECTORS = json.loads((ROOT / "docs" / "vectors.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("vector", VECTORS["job_ids"], ids=lambda vector: str(vector["job_id"]))
def test_the_job_ids_are_ours(vector: dict[str, Any]) -> None:
    fields = {name: value for name, value in vector.items() if name not in ("canonical", "job_id")}

    assert job_id_for(**fields) == vector["job_id"]
    assert str(uuid.uuid5(JOB_NAMESPACE, vector["canonical"])) == vector["job_id"]


def test_the_document_s_job_ids_are_among_them() -> None:
    document = table(ROOT / "docs" / "wire-format.md", "canonical string")
    written = {(code(row[0]), code(row[1])) for row in document}

    assert len(written) >= 4
    assert written <= {(vector["canonical"], vector["job_id"]) for vector in VECTORS["job_ids"]}


@pytest.mark.parametrize("vector", VECTORS["envelopes"], ids=lambda vector: str(vector["list"]))
def test_the_envelopes_are_ours(vector: dict[str, Any]) -> None:
    job = parse_message_text(vector["message"])
    ours = json.loads(envelope(job, vector["message"]))
    ours["properties"]["delivery_tag"] = "{delivery_tag}"

    assert vector["envelope"] == ours
    assert vector["list"] == list_key(job.queue, job.priority)
    body = json.loads(base64.b64decode(vector["envelope"]["body"]))
    assert body[1] == {"message": json.loads(vector["message"])}
