"""The policies in deploy/: keys with these rights are enough for a worker and an upload, and can do nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.support.processes import ROOT
from tests.support.servers import server_folder
from tests.support.store import a_job
from tussis.shared.s3 import list_objects
from tussis.shared.uploads import upload
from tussis.shared.uris import ObjectAddress
from tussis.worker.embedded.folder import Folder
from tussis.worker.embedded.s3 import REGION, ObjectStore
from tussis.worker.pipeline.objects import fetch, resolve

BUCKET = "recordings"
#: Keys -> what a policy allows, as the actions of SeaweedFS.
KEYS = {"READER": ["Read", "List"], "UPLOADER": ["Write"]}
ACTIONS = {
    "s3-read.json": {"s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket"},
    "s3-upload.json": {"s3:PutObject", "s3:AbortMultipartUpload"},
}


class _StoreWithKeys(ObjectStore):
    def _write_keys(self, file: Path) -> None:
        super()._write_keys(file)
        told = json.loads(file.read_text())
        for name, actions in KEYS.items():
            told["identities"].append(
                {
                    "name": name.lower(),
                    "credentials": [{"accessKey": name, "secretKey": f"{name}-secret"}],
                    "actions": [f"{action}:{BUCKET}" for action in actions],
                }
            )
        file.write_text(json.dumps(told))


@pytest.fixture(scope="module")
def client() -> Iterator[Callable[[str], Any]]:
    """Return a client with the keys of this name; ADMIN has those of the administrator."""
    with server_folder() as path:
        folder = Folder(path)
        store = _StoreWithKeys(folder)
        try:
            store.start()
            admin = (folder.credentials.s3_access_key, folder.credentials.s3_secret_key)

            def make(name: str) -> Any:
                access, secret = admin if name == "ADMIN" else (name, f"{name}-secret")
                return boto3.client(
                    "s3",
                    endpoint_url=store.url,
                    region_name=REGION,
                    aws_access_key_id=access,
                    aws_secret_access_key=secret,
                    config=Config(connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 2}),
                )

            make("ADMIN").create_bucket(Bucket=BUCKET)
            yield make
        finally:
            store.stop()
            folder.release()


def refused(call: Callable[..., Any], **arguments: Any) -> None:
    with pytest.raises(ClientError) as error:
        call(Bucket=BUCKET, **arguments)
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


@pytest.mark.parametrize("name", ACTIONS)
def test_a_policy_allows_what_its_document_says(name: str) -> None:
    policy = json.loads((ROOT / "deploy" / name).read_text("utf-8"))
    assert {action for statement in policy["Statement"] for action in statement["Action"]} == ACTIONS[name]
    assert {statement["Effect"] for statement in policy["Statement"]} == {"Allow"}
    for statement in policy["Statement"]:
        assert statement["Resource"].startswith("arn:aws:s3:::BUCKET")


def test_a_reader_is_enough_for_a_worker_and_a_sweep_and_writes_nothing(client: Callable[[str], Any]) -> None:
    client("ADMIN").put_object(Bucket=BUCKET, Key="a.wav", Body=b"RIFF")
    reader = client("READER")
    assert [found.key for found in list_objects(reader, BUCKET, "")] == ["a.wav"]
    version = resolve(reader, a_job(bucket=BUCKET, key="a.wav"))
    assert fetch(reader, version, max_bytes=100, deadline_s=60.0) == b"RIFF"
    refused(reader.put_object, Key="b.wav", Body=b"x")
    refused(reader.delete_object, Key="a.wav")
    refused(reader.create_multipart_upload, Key="b.wav")
    refused(reader.delete_bucket)


def test_an_uploader_stores_objects_and_reads_none(client: Callable[[str], Any]) -> None:
    uploader = client("UPLOADER")
    stored = upload(uploader, ObjectAddress(BUCKET, "up.wav"), [b"RIFF"], max_bytes=100)
    assert stored.uri == f"s3://{BUCKET}/up.wav"
    refused(uploader.get_object, Key="up.wav")
    refused(uploader.list_objects_v2)
