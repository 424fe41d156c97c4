"""The object store's faults become our errors, whatever way they come."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore import exceptions as botocore
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ClientError
from urllib3.exceptions import SSLError

from tests.support.waiting import PATIENCE
from tussis.shared.errors import (
    BucketElsewhere,
    BucketMissing,
    DownloadCut,
    DownloadDamaged,
    InvalidUri,
    ObjectArchived,
    ObjectChanged,
    ObjectMissing,
    SettingsInvalid,
    StorageAccessDenied,
    StorageCredentials,
    StorageUnavailable,
    TussisError,
)
from tussis.shared.s3 import ListedObject, head_object, list_objects, s3_client, storage_errors
from tussis.shared.settings import load_settings

URI = "s3://clinic/a.wav"


def answer(status: int, code: str, message: str = "said so", operation: str = "GetObject") -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, operation)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (answer(404, "NoSuchKey"), ObjectMissing),
        (answer(404, "NoSuchVersion"), ObjectMissing),
        (answer(404, "404", operation="HeadObject"), ObjectMissing),
        (answer(404, "404"), StorageUnavailable),
        (answer(405, "MethodNotAllowed"), ObjectMissing),
        (answer(400, "InvalidArgument", "Invalid version id specified"), ObjectMissing),
        (answer(404, "NoSuchBucket"), BucketMissing),
        (answer(412, "PreconditionFailed"), ObjectChanged),
        (answer(403, "InvalidObjectState"), ObjectArchived),
        (answer(403, "AccessDenied"), StorageAccessDenied),
        (answer(403, "403", operation="HeadObject"), StorageAccessDenied),
        (answer(403, "InvalidAccessKeyId"), StorageCredentials),
        (answer(403, "SignatureDoesNotMatch"), StorageCredentials),
        (answer(400, "ExpiredToken"), StorageCredentials),
        (answer(403, "RequestTimeTooSkewed"), StorageCredentials),
        (answer(301, "PermanentRedirect"), BucketElsewhere),
        (answer(400, "AuthorizationHeaderMalformed"), SettingsInvalid),
        (answer(500, "InternalError"), StorageUnavailable),
        (answer(503, "SlowDown"), StorageUnavailable),
        (answer(400, "RequestTimeout"), StorageUnavailable),
        (answer(429, "TooManyRequests"), StorageUnavailable),
        (botocore.NoCredentialsError(), StorageCredentials),
        (botocore.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"), StorageCredentials),
        (botocore.UnauthorizedSSOTokenError(), StorageCredentials),
        (botocore.EndpointConnectionError(endpoint_url="http://host"), StorageUnavailable),
        (botocore.ConnectTimeoutError(endpoint_url="http://host"), StorageUnavailable),
        (botocore.ReadTimeoutError(endpoint_url="http://host"), StorageUnavailable),
        (botocore.ConnectionClosedError(endpoint_url="http://host"), StorageUnavailable),
        (botocore.SSLError(endpoint_url="https://host", error=OSError("bad")), StorageUnavailable),
        (botocore.ResponseStreamingError(error="broken"), DownloadCut),
        (botocore.IncompleteReadError(actual_bytes=1, expected_bytes=2), DownloadCut),
        (botocore.FlexibleChecksumError(error_msg="differs"), DownloadDamaged),
        (SSLError("bad record"), DownloadCut),
        (ValueError("Invalid timestamp"), StorageUnavailable),
        (botocore.ParamValidationError(report="Invalid\nbucket"), InvalidUri),
        (botocore.NoRegionError(), SettingsInvalid),
        (botocore.UnknownKeyError(value="x", param="p", choices="c"), StorageUnavailable),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value)[:60],
)
def test_every_fault_has_its_error(raised: Exception, told: type[TussisError]) -> None:
    with pytest.raises(TussisError) as caught, storage_errors(URI):
        raise raised

    assert type(caught.value) is told
    assert "\n" not in str(caught.value)
    assert told is SettingsInvalid or URI in str(caught.value)


def test_other_exceptions_pass() -> None:
    with pytest.raises(ObjectMissing, match="ours"), storage_errors(URI):
        raise ObjectMissing("ours")
    with pytest.raises(KeyError), storage_errors(URI):
        raise KeyError("a mistake")


@dataclass
class Store:
    """A store that gives prepared answers: (method, path without query) -> (status, body)."""

    url: str
    answers: dict[tuple[str, str], tuple[int, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


def _xml(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code} said</Message></Error>".encode()


@pytest.fixture
def store() -> Iterator[Store]:
    prepared = Store("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            prepared.asked.append(self.command)
            status, body = prepared.answers[self.command, self.path.partition("?")[0]]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"9b2c"')
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        prepared.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield prepared
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def clients() -> Iterator[list[Any]]:
    made: list[Any] = []
    yield made
    for client in made:
        client.close()


def _client(url: str, clients: list[Any]) -> Any:
    clients.append(s3_client(load_settings(s3_endpoint_url=url)))
    return clients[-1]


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (404, _xml("NoSuchKey"), ObjectMissing),
        (404, _xml("NoSuchBucket"), BucketMissing),
        (403, _xml("AccessDenied"), StorageAccessDenied),
        (403, _xml("InvalidAccessKeyId"), StorageCredentials),
        (403, _xml("SignatureDoesNotMatch"), StorageCredentials),
        (400, _xml("ExpiredToken"), StorageCredentials),
        (404, b"<html>not S3</html>", StorageUnavailable),
        (403, b"", StorageUnavailable),
    ],
)
def test_a_refused_head_is_asked_again_for_its_reason(
    store: Store, clients: list[Any], status: int, body: bytes, told: type[TussisError]
) -> None:
    store.answers = {("HEAD", "/clinic/a.wav"): (status, b""), ("GET", "/clinic/a.wav"): (status, body)}
    store.answers["HEAD", "/clinic"] = (status, b"")  # botocore's own question after a 400: is it another region?

    with pytest.raises(TussisError) as caught:
        head_object(_client(store.url, clients), "clinic", "a.wav")

    assert type(caught.value) is told
    assert store.asked[-1] == "GET"


def test_an_object_that_appears_between_the_two_questions_is_still_reported_missing(
    store: Store, clients: list[Any]
) -> None:
    store.answers = {("HEAD", "/clinic/a.wav"): (404, b""), ("GET", "/clinic/a.wav"): (206, b"x")}

    with pytest.raises(ObjectMissing):
        head_object(_client(store.url, clients), "clinic", "a.wav")


def test_a_store_that_is_overloaded_is_asked_twice(store: Store, clients: list[Any]) -> None:
    store.answers = {("HEAD", "/clinic/a.wav"): (503, b"")}

    with pytest.raises(StorageUnavailable, match="503"):
        head_object(_client(store.url, clients), "clinic", "a.wav")

    assert store.asked == ["HEAD", "HEAD"]


def test_an_entity_tag_comes_without_quotes(store: Store, clients: list[Any]) -> None:
    store.answers = {("HEAD", "/clinic/a.wav"): (200, b"12345")}

    head = head_object(_client(store.url, clients), "clinic", "a.wav")

    assert (head.etag, head.version_id, head.size_bytes) == ("9b2c", None, 5)


def test_a_listing_of_something_else_is_no_store(store: Store, clients: list[Any]) -> None:
    store.answers = {("GET", "/clinic"): (200, b"<html><body>welcome</body>")}

    with pytest.raises(StorageUnavailable, match="s3://clinic/"):
        list(list_objects(_client(store.url, clients), "clinic", ""))


def test_a_store_that_never_answers_is_given_up_within_ten_seconds(silent_port: int, clients: list[Any]) -> None:
    client = _client(f"http://127.0.0.1:{silent_port}", clients)
    began = time.monotonic()

    with pytest.raises(StorageUnavailable, match="TUSSIS_S3_ENDPOINT_URL"):
        head_object(client, "clinic", "a.wav")

    assert time.monotonic() - began < 10 * PATIENCE


def test_a_store_that_is_not_there_is_given_up_within_ten_seconds(unused_port: int, clients: list[Any]) -> None:
    client = _client(f"http://127.0.0.1:{unused_port}", clients)
    began = time.monotonic()

    with pytest.raises(StorageUnavailable, match=f"127.0.0.1:{unused_port}"):
        head_object(client, "clinic", "a.wav")

    assert time.monotonic() - began < 10 * PATIENCE


def test_missing_credentials_are_said_to_be(monkeypatch: pytest.MonkeyPatch, store: Store, clients: list[Any]) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")

    with pytest.raises(StorageCredentials, match="AWS_ACCESS_KEY_ID"):
        head_object(_client(store.url, clients), "clinic", "a.wav")


@pytest.mark.parametrize("url", ["host:8333", "not a url", "http://"])
def test_a_wrong_endpoint_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(SettingsInvalid, match="TUSSIS_S3_ENDPOINT_URL"):
        s3_client(load_settings(s3_endpoint_url=url))


def test_a_wrong_region_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "no such region!")

    with pytest.raises(SettingsInvalid, match="region"):
        s3_client(load_settings(s3_endpoint_url="http://127.0.0.1:8333"))


def test_a_profile_that_does_not_exist_is_a_matter_of_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")

    with pytest.raises(StorageCredentials, match="nobody"):
        s3_client(load_settings())


def test_buckets_of_an_own_endpoint_are_part_of_the_path(clients: list[Any]) -> None:
    client = _client("http://store.example:8333", clients)

    url = client.generate_presigned_url("get_object", Params={"Bucket": "clinic", "Key": "a.wav"})

    assert url.startswith("http://store.example:8333/clinic/a.wav?")


@pytest.mark.parametrize(("status", "region"), [(301, "eu-west-3"), (400, "eu-west-3"), (301, None)])
def test_a_bucket_of_amazon_in_another_region_is_followed(
    monkeypatch: pytest.MonkeyPatch, clients: list[Any], status: int, region: str | None
) -> None:
    """Without an endpoint of one's own boto3 goes where the answer leads; without a region in it, it cannot."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = s3_client(load_settings())
    clients.append(client)
    asked: list[str] = []

    def send(request: Any, **_: Any) -> AWSResponse:
        host = urlsplit(request.url).hostname or ""
        asked.append(host)
        there = region is not None and region in host
        headers = {"ETag": '"9b2c"', "Content-Length": "5"} if there else {"x-amz-bucket-region": region or ""}
        sent = HTTPHeaders.from_dict({name: value for name, value in headers.items() if value})
        answer = AWSResponse(request.url, 200 if there else status, sent, io.BytesIO())
        answer._content = b"" if request.method == "HEAD" else _xml("PermanentRedirect")
        return answer

    client.meta.events.register("before-send.s3", send)
    if region is None:
        with pytest.raises(BucketElsewhere, match="clinic"):
            head_object(client, "clinic", "a.wav")
        return
    assert head_object(client, "clinic", "a.wav").etag == "9b2c"
    assert head_object(client, "clinic", "a.wav").etag == "9b2c"
    assert asked == ["clinic.s3.amazonaws.com", *["clinic.s3.eu-west-3.amazonaws.com"] * 2]


@pytest.mark.parametrize(
    ("listing", "missing"),
    [
        (b"<Contents><Key>a.wav</Key><Size>5</Size></Contents>", "ETag"),
        (b"<Contents><Key>a.wav</Key><ETag>x</ETag></Contents>", "Size"),
        (b"<Contents><Size>5</Size><ETag>x</ETag></Contents>", "Key"),
        (b"<Contents><Key>a.wav</Key><Size>many</Size><ETag>x</ETag></Contents>", "many"),
        (b"<Contents><Key>a.wav</Key><LastModified>never</LastModified></Contents>", "never"),
    ],
)
def test_a_listing_that_leaves_something_out_is_one_line(
    store: Store, clients: list[Any], listing: bytes, missing: str
) -> None:
    store.answers = {
        ("GET", "/clinic"): (
            200,
            b"<ListBucketResult><IsTruncated>false</IsTruncated>" + listing + b"</ListBucketResult>",
        )
    }
    with pytest.raises(StorageUnavailable, match=missing) as caught:
        list(list_objects(_client(store.url, clients), "clinic", ""))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("etag", ["&quot;9b2c&quot;", "9b2c", "W/&quot;9b2c&quot;"])
def test_a_listing_needs_no_more_than_key_size_and_entity_tag(store: Store, clients: list[Any], etag: str) -> None:
    entry = f"<Contents><Key>a.wav</Key><Size>5</Size><ETag>{etag}</ETag></Contents>".encode()
    store.answers = {
        ("GET", "/clinic"): (
            200,
            b"<ListBucketResult><IsTruncated>false</IsTruncated>" + entry + b"</ListBucketResult>",
        )
    }
    found = list(list_objects(_client(store.url, clients), "clinic", ""))
    assert found == [ListedObject("a.wav", "9b2c", 5)]


@pytest.mark.parametrize(
    "body",
    [
        b"<html><p>sign in</p></html>",
        b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
    ],
)
def test_an_answer_that_is_no_whole_listing_is_none(store: Store, clients: list[Any], body: bytes) -> None:
    store.answers = {("GET", "/clinic"): (200, body)}
    with pytest.raises(StorageUnavailable, match="not a complete listing"):
        list(list_objects(_client(store.url, clients), "clinic", ""))
