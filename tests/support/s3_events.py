"""Notifications of object stores as they send them, for tests. The filer's were written by ``weed`` 4.48."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote, quote_plus

TOPIC = "arn:aws:sns:eu-central-1:123456789012:uploads"


def record(
    bucket: str, key: str, *, event: str = "ObjectCreated:Put", source: str = "aws:s3", **about: Any
) -> dict[str, Any]:
    """One of S3's records. S3 encodes keys as in an HTML form; ``about``: versionId, sequencer, eTag, size."""
    details = {"size": 1024, "eTag": "d41d8cd98f00b204e9800998ecf8427e", "sequencer": "0A1B2C3D4E5F678901", **about}
    return {
        "eventVersion": "2.1",
        "eventSource": source,
        "awsRegion": "eu-central-1",
        "eventTime": "2026-11-29T10:00:00.000Z",
        "eventName": event,
        "userIdentity": {"principalId": "EXAMPLE"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "uploads",
            "bucket": {"name": bucket, "ownerIdentity": {"principalId": "EXAMPLE"}, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {"key": quote_plus(key, safe="/"), **details},
        },
    }


def records(*found: dict[str, Any]) -> str:
    """The body of a message with records."""
    return json.dumps({"Records": found})


def test_event(bucket: str) -> str:
    """What S3 sends when the notification is configured."""
    return json.dumps(
        {
            "Service": "Amazon S3",
            "Event": "s3:TestEvent",
            "Time": "2026-11-29T10:00:00.000Z",
            "Bucket": bucket,
            "RequestId": "5582815E1AEA5ADF",
            "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR",
        }
    )


test_event.__test__ = False  # type: ignore[attr-defined]


def minio(bucket: str, key: str, event: str = "s3:ObjectCreated:Put", **about: Any) -> str:
    """MinIO's webhook: names with a prefix, and slashes encoded too."""
    found = record(bucket, key, event=event, source="minio:s3", **about)
    found["s3"]["object"]["key"] = quote_plus(key)
    return json.dumps({"EventName": event, "Key": f"{bucket}/{key}", "Records": [found]})


def eventbridge(bucket: str, key: str, *, kind: str = "Object Created", **about: Any) -> str:
    """EventBridge's event. The key is not encoded."""
    details = {"size": 1024, "etag": "d41d8cd98f00b204e9800998ecf8427e", "sequencer": "0A1B2C3D4E5F678901", **about}
    return json.dumps(
        {
            "version": "0",
            "id": "17793124-05d4-b198-2fde-7ededc63b103",
            "detail-type": kind,
            "source": "aws.s3",
            "account": "123456789012",
            "time": "2026-11-29T10:00:00Z",
            "region": "eu-central-1",
            "resources": [f"arn:aws:s3:::{bucket}"],
            "detail": {
                "version": "0",
                "bucket": {"name": bucket},
                "object": {"key": key, **details},
                "request-id": "N4N7GDK58NMKJ12R",
                "requester": "123456789012",
                "reason": "PutObject",
            },
        }
    )


def sns(message: str, topic: str = TOPIC) -> dict[str, Any]:
    """A notification of SNS, with a signature that is wrong."""
    return {
        "Type": "Notification",
        "MessageId": "da41e39f-ea4d-435a-b922-c6aae3915ebe",
        "TopicArn": topic,
        "Subject": "Amazon S3 Notification",
        "Message": message,
        "Timestamp": "2026-11-29T10:00:00.000Z",
        "SignatureVersion": "1",
        "Signature": "EXAMPLE",
        "SigningCertURL": "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
        "UnsubscribeURL": f"https://sns.eu-central-1.amazonaws.com/?Action=Unsubscribe&SubscriptionArn={quote(topic)}",
    }


def filer_entry(name: str, etag: str = "5d41402abc4b2a76b9719d911017c592", size: int = 5, **extended: str) -> Any:
    """A file of the filer, stored through its S3 server."""
    attributes = {"mtime": 1795985067, "file_mode": 432, "mime": "audio/wav"} | ({"file_size": size} if size else {})
    named = {"Seaweed-X-Amz-ETag": etag, **{name.replace("_", "-"): value for name, value in extended.items()}}
    return {
        "name": name,
        "chunks": [{"size": size, "fid": {"volume_id": 1, "file_key": 1, "cookie": 290387321}}] if size else [],
        "attributes": attributes,
        "extended": {name: base64.b64encode(value.encode()).decode() for name, value in named.items()},
    }


def filer(path: str, new: Any = None, old: Any = None, parent: str | None = None, kind: str = "create") -> str:
    """An event of the filer about a path. ``parent``: the folder after the change."""
    message: dict[str, Any] = {"delete_chunks": True, "signatures": [-1251078255]}
    if old is not None:
        message["old_entry"] = old
    if new is not None:
        message |= {"new_entry": new, "new_parent_path": parent or path.rpartition("/")[0]}
    return json.dumps({"event_type": kind, "key": path, "message": message})
