"""The short GET sends botocore's request, takes only the expected answer, and leaves the rest to botocore."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError
from botocore.handlers import add_retry_headers

from tests.support.odd_store import Answer, OddStore, odd_store
from tests.unit.pipeline.test_objects import CRC32, DATA, KMS, MD5, OTHER, PARTS, version
from tussis.shared.errors import (
    BucketNotAllowed,
    DownloadDamaged,
    ObjectChanged,
    ObjectMissing,
    StorageAccessDenied,
    StorageUnavailable,
    TussisError,
)
from tussis.shared.s3 import s3_client
from tussis.shared.settings import load_settings
from tussis.worker.pipeline.object_bytes import ObjectVersion
from tussis.worker.pipeline.objects import fetch
from tussis.worker.pipeline.repeated_get import RepeatedGet

__all__ = ["odd_store"]

GOOD = Answer(DATA, f'"{MD5}"')


def fetched(s3: Any, of: ObjectVersion | None = None) -> bytes:
    return fetch(s3, of or version(), max_bytes=1 << 20, deadline_s=30.0)


def calls(s3: Any) -> list[int]:
    """A list that gets an entry for each whole call of botocore."""
    seen: list[int] = []
    s3.meta.events.register("before-call.s3.GetObject", lambda **_: seen.append(1))
    return seen


@pytest.fixture
def s3(odd_store: OddStore) -> RepeatedGet:
    """A client that knows the bucket."""
    odd_store.answers["GET"] = [GOOD]
    client = RepeatedGet(odd_store.client)
    fetched(client)
    odd_store.asked.clear()
    return client


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RepeatedGet, list[Any]]]:
    """A client of Amazon's S3, and the requests it sends at one fixed time, without botocore's count of tries."""
    for name, value in {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "DEFAULT_REGION": "eu-west-3"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda **_: datetime(2026, 11, 30, tzinfo=UTC))
    client = s3_client(load_settings())
    client.meta.events.unregister("request-created", add_retry_headers)
    requests: list[Any] = []

    def send(request: Any) -> AWSResponse:
        requests.append(request)
        headers = HTTPHeaders.from_dict({"ETag": f'"{MD5}"', "Content-Length": str(len(DATA))})
        return AWSResponse(request.url, 200, headers, io.BytesIO(DATA))

    monkeypatch.setattr(client._endpoint.http_session, "send", send)
    yield RepeatedGet(client), requests
    client.close()


@pytest.mark.parametrize("version_id", [None, "3/L4kqtJ+l~pCn.X_-8="])
@pytest.mark.parametrize("bucket", ["clinic", "clinic.with.dots"])
@pytest.mark.parametrize("key", ["a.wav", "in/ä b+%2F&?#~'(1)*!=:@,;$.wav"])
def test_the_request_and_its_signature_are_botocore_s(
    sent: tuple[RepeatedGet, list[Any]], key: str, bucket: str, version_id: str | None
) -> None:
    s3, requests = sent
    whole = calls(s3)
    of = ObjectVersion(bucket, key, MD5, version_id, None)
    assert fetched(s3, of) == DATA
    fetched(s3, ObjectVersion(bucket, "other.wav", MD5, None, None))
    assert fetched(s3, of) == DATA
    assert len(whole) == 1
    first, other, second = requests
    assert second.url == first.url != other.url
    assert {k: str(v) for k, v in second.headers.items()} == {
        k: v.decode() if isinstance(v, bytes) else str(v) for k, v in first.headers.items()
    }
    assert "Signature=" in str(second.headers["Authorization"])


@pytest.mark.parametrize("key", ["a//b", "/a", "a/../b", "./a", "a/"])
def test_a_key_that_may_be_another_path_is_botocore_s(sent: tuple[RepeatedGet, list[Any]], key: str) -> None:
    s3, _ = sent
    fetched(s3)
    whole = calls(s3)
    fetched(s3, ObjectVersion("clinic", key, MD5, None, None))
    assert len(whole) == 1


def test_the_short_request_is_sent_over_the_kept_connection(odd_store: OddStore, s3: RepeatedGet) -> None:
    whole = calls(s3)
    assert fetched(s3) == DATA
    assert not whole
    assert [method for method, _, _ in odd_store.asked] == ["GET"]
    assert odd_store.asked[0][2]["x-amz-checksum-mode"] == "ENABLED"
    packed = gzip.compress(DATA)
    odd_store.answers["GET"] = [Answer(packed, f'"{MD5}"', headers={"Content-Encoding": "gzip"}, chunked=True)]
    assert fetched(s3) == DATA
    assert not whole


@pytest.mark.parametrize(
    "first",
    [
        Answer(b"", None, status=503),
        Answer(b"", None, status=500),
        Answer(b"", None, status=412),
        Answer(b"<Error><Code>ExpiredToken</Code></Error>", None, status=400),
        Answer(b"", None, status=307, headers={"Location": "http://127.0.0.1:1/"}),
        Answer(OTHER, '"other"'),
        Answer(DATA, None),
    ],
)
def test_after_another_answer_botocore_s_call_follows(odd_store: OddStore, s3: RepeatedGet, first: Answer) -> None:
    whole = calls(s3)
    odd_store.answers["GET"] = [first, GOOD]
    assert fetched(s3) == DATA
    assert fetched(s3) == DATA
    assert len(whole) == 1
    assert len(odd_store.asked) == 3


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(b"<Error><Code>NoSuchKey</Code></Error>", None, status=404), ObjectMissing),
        (Answer(b"<Error><Code>AccessDenied</Code></Error>", None, status=403), StorageAccessDenied),
        (Answer(b"", None, status=503), StorageUnavailable),
        (Answer(OTHER, '"other"'), ObjectChanged),
        (Answer(OTHER, f'"{MD5}"'), DownloadDamaged),
        (Answer(OTHER, f'"{MD5}"', headers={"x-amz-checksum-crc32": CRC32} | KMS), DownloadDamaged),
        (
            Answer(b"<html>", f'"{MD5}"', headers={"Content-Type": "text/html", "x-amz-request-id": ""}),
            StorageUnavailable,
        ),
    ],
)
def test_errors_are_as_without_it(
    odd_store: OddStore, s3: RepeatedGet, answer: Answer, told: type[TussisError]
) -> None:
    odd_store.answers["GET"] = [answer]
    with pytest.raises(told, match=r"s3://clinic/a\.wav") as short:
        fetched(s3)
    with pytest.raises(told) as long:
        fetched(odd_store.client)
    assert str(short.value) == str(long.value)


def test_a_checksum_of_parts_is_not_compared(odd_store: OddStore, s3: RepeatedGet) -> None:
    whole = calls(s3)
    headers = {"x-amz-checksum-crc32": f"{CRC32}-2", "x-amz-checksum-type": "COMPOSITE"}
    odd_store.answers["GET"] = [Answer(DATA, f'"{PARTS}"', headers=headers)]
    odd_store.answers["HEAD"] = [Answer(b"", f'"{PARTS}"', length=len(DATA))]
    assert fetched(s3, version(PARTS)) == DATA
    assert [method for method, _, _ in odd_store.asked] == ["GET", "HEAD"]
    assert not whole


def test_a_store_without_an_answer_is_tried_twice_altogether(s3: RepeatedGet, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def send(request: Any) -> None:
        tries.append(request.url)
        raise ReadTimeoutError(endpoint_url=request.url)

    monkeypatch.setattr(s3._http, "send", send)
    for _ in range(2):
        tries.clear()
        with pytest.raises(StorageUnavailable, match="TUSSIS_S3_ENDPOINT_URL"):
            fetched(s3)
        assert len(tries) == 2


def test_after_a_closed_connection_botocore_s_call_follows(s3: RepeatedGet, monkeypatch: pytest.MonkeyPatch) -> None:
    send = s3._http.send

    def closed(request: Any) -> None:
        monkeypatch.setattr(s3._http, "send", send)
        raise ConnectionClosedError(endpoint_url=request.url)

    monkeypatch.setattr(s3._http, "send", closed)
    whole = calls(s3)
    assert fetched(s3) == DATA
    assert len(whole) == 1


def test_credentials_are_read_anew_for_each_request(odd_store: OddStore, s3: RepeatedGet) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=30)
    names = iter(["FIRST", "SECOND"])

    def refreshed() -> dict[str, str]:
        return {"access_key": next(names), "secret_key": "s", "token": "t", "expiry_time": soon.isoformat()}

    s3._request_signer._credentials = RefreshableCredentials("OLD", "s", "t", soon, refreshed, "test")
    whole = calls(s3)
    fetched(s3)
    fetched(s3)
    assert not whole
    first, second = (headers["authorization"] for _, _, headers in odd_store.asked)
    assert "Credential=FIRST/" in first
    assert "Credential=SECOND/" in second


def test_the_allowed_prefixes_are_checked_before_the_short_request(odd_store: OddStore) -> None:
    odd_store.answers["GET"] = [GOOD]
    client = s3_client(load_settings(s3_endpoint_url=odd_store.url, allowed_buckets="clinic/in/"))
    try:
        s3 = RepeatedGet(client)
        for key in ("in/a.wav", "in/b.wav"):
            fetched(s3, ObjectVersion("clinic", key, MD5, None, None))
        with pytest.raises(BucketNotAllowed):
            fetched(s3, ObjectVersion("clinic", "out/a.wav", MD5, None, None))
        assert len(odd_store.asked) == 2
    finally:
        client.close()


def test_the_short_request_goes_through_the_proxy(odd_store: OddStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", odd_store.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    odd_store.answers["GET"] = [GOOD]
    client = s3_client(load_settings(s3_endpoint_url="http://store.example:8333"))
    try:
        s3 = RepeatedGet(client)
        whole = calls(s3)
        assert fetched(s3) == fetched(s3) == DATA
        assert len(whole) == 1
        assert [path for _, path, _ in odd_store.asked] == ["http://store.example:8333/clinic/a.wav"] * 2
    finally:
        client.close()
