"""Access to the object store: the client, the properties of an object, a listing, and conversion to Tussis errors.

boto3 takes a quarter of a second to import, so it is imported on the first call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tussis.shared.allowed import AllowedBuckets
from tussis.shared.errors import (
    BucketMissing,
    DownloadCut,
    DownloadDamaged,
    InvalidUri,
    ObjectMissing,
    SettingsInvalid,
    StorageCredentials,
    StorageUnavailable,
)
from tussis.shared.messages import normalise_etag
from tussis.shared.redaction import is_plain, redacted
from tussis.shared.s3_refusals import CHECK_CREDENTIALS, CHECK_ENDPOINT, line, refusal
from tussis.shared.tls import tls_reason

if TYPE_CHECKING:
    from tussis.shared.settings import Settings

# Seconds. Without an answer, two tries and the pause between them end within 10 s.
_CONNECT_TIMEOUT_S = 3.0
_READ_TIMEOUT_S = 3.5
_TRIES = 2

#: Prefixes of headers that object stores send: Amazon and compatible stores, Google, SeaweedFS.
_STORE_HEADERS = ("x-amz-", "x-goog-", "seaweed-")


@dataclass(frozen=True)
class ObjectHead:
    """The properties of an object: the entity tag without quotes, the version id, and the size in bytes.

    ``version_id`` is None in a bucket without versions. ``size_bytes`` is None if the answer has no length.
    """

    etag: str
    version_id: str | None
    size_bytes: int | None


@dataclass(frozen=True)
class ListedObject:
    """One entry of a listing. ``etag`` has no quotes."""

    key: str
    etag: str
    size_bytes: int


def s3_client(
    settings: Settings,
    *,
    connections: int = 16,
    read_timeout_s: float = _READ_TIMEOUT_S,
    recordings: bool = True,
) -> Any:
    """Return a boto3 client for the configured endpoint. It keeps at most ``connections`` connections open.

    boto3 finds credentials and region. With the default ``read_timeout_s`` an error is raised within 10 s: two tries
    with this limit and :data:`_CONNECT_TIMEOUT_S`. A client for uploads takes
    :data:`tussis.shared.uploads.UPLOAD_READ_TIMEOUT_S`. Raises :class:`SettingsInvalid` and
    :class:`StorageCredentials`.

    A client for ``recordings`` refuses every other bucket than those of TUSSIS_ALLOWED_BUCKETS with
    :class:`BucketNotAllowed`, before it sends the request. A client for models does not.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, InvalidRegionError

    endpoint = settings.s3_endpoint_url
    if endpoint is not None and not is_plain(endpoint):
        raise SettingsInvalid(
            "TUSSIS_S3_ENDPOINT_URL is wrong: write http://host:port or https://host, without user, password and "
            "options; credentials belong into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    config = Config(
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": _TRIES},
        max_pool_connections=connections,
        tcp_keepalive=True,
        # Most other stores than Amazon's are not reachable as BUCKET.HOST. Older stores refuse checksum trailers.
        s3={"addressing_style": "path"} if endpoint else {},
        request_checksum_calculation="when_required",
        # botocore builds its default for each request, which takes longer than signing the request.
        user_agent=f"tussis boto3/{boto3.__version__}",
    )
    try:
        session = boto3.session.Session()
        # Every S3 request is signed for a region. A self-hosted store has no region and accepts this one.
        region = session.region_name or ("us-east-1" if endpoint else None)
        client = session.client("s3", endpoint_url=endpoint, region_name=region, config=config)
    except InvalidRegionError as error:
        raise SettingsInvalid(f"AWS_REGION is wrong: {line(error)}") from None
    except ValueError:
        raise SettingsInvalid("TUSSIS_S3_ENDPOINT_URL is wrong: write http://host:port or https://host") from None
    except BotoCoreError as error:
        raise StorageCredentials(f"the configuration of boto3 is wrong: {line(error)}") from error
    if recordings:
        AllowedBuckets.parse(settings.allowed_buckets).guard(client)
    client.meta.events.register_first("needs-retry.s3.HeadBucket", _stop_redirects)
    return client


def models_s3(settings: Settings) -> Any:
    """:func:`s3_client` for models, which may be in any bucket."""
    return s3_client(settings, recordings=False)


def _stop_redirects(request_dict: dict[str, Any], **_: object) -> None:
    """Prevent botocore from following a redirect of HEAD on a bucket.

    After a redirect, botocore sends this request to get the region of the bucket. If this request is redirected too, as
    by a captive portal, botocore repeats it until RecursionError (botocore 1.44, ``utils.py``,
    ``S3RegionRedirectorv2``). The region is in the first answer.
    """
    request_dict.get("context", {}).get("s3_redirect", {})["redirected"] = True


def head_object(s3: Any, bucket: str, key: str, version_id: str | None = None) -> ObjectHead:
    """Request the properties of one object.

    An answer to HEAD has no body. It does not distinguish a missing bucket from a missing key, or wrong credentials
    from a missing right. In these cases the function also requests the first byte with GET. Raises the errors of
    :func:`storage_errors`.
    """
    from botocore.exceptions import ClientError

    uri = f"s3://{bucket}/{key}"
    which = {"Bucket": bucket, "Key": key} | ({"VersionId": version_id} if version_id else {})
    with storage_errors(uri, s3):
        try:
            answer = s3.head_object(**which)
        except ClientError as error:
            code = str(error.response["Error"].get("Code", ""))
            if not code.isdigit() or int(code) == 412 or int(code) >= 500:
                raise
            s3.get_object(**which, Range="bytes=0-0")["Body"].close()
            raise  # the object has appeared since: the error of the first answer is raised
    size = answer.get("ContentLength")
    return ObjectHead(entity_tag(answer, uri), answer.get("VersionId"), None if size is None else int(size))


def entity_tag(answer: Mapping[str, Any], uri: str) -> str:
    """The entity tag, without quotes, of an answer to HEAD or GET.

    Raises :class:`StorageUnavailable` if there is none, and for a web page (a captive portal, a proxy's notice) with an
    entity tag. A web page has none of the headers that an object store adds to each answer.
    """
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    kind = str(answer.get("ContentType", ""))
    if kind.startswith("text/html") and not any(name.startswith(_STORE_HEADERS) for name in headers):
        raise StorageUnavailable(f"the answer for {uri} is a web page, not from an object store: {CHECK_ENDPOINT}")
    etag = normalise_etag(str(answer.get("ETag") or ""))
    if not etag:
        raise StorageUnavailable(
            f"the answer for {uri} has no entity tag (header ETag): check TUSSIS_S3_ENDPOINT_URL, and that no proxy "
            "removes the header"
        )
    return etag


def list_objects(s3: Any, bucket: str, prefix: str, start_after: str = "") -> Iterator[ListedObject]:
    """Yield the objects whose key starts with ``prefix``, in S3's order, after the key ``start_after``.

    The function holds one page of 1000 objects at a time. It leaves out the empty objects that consoles create as
    folders (``name/``). Raises the errors of :func:`storage_errors`, and :class:`StorageUnavailable` for an answer that
    is not a listing.
    """
    uri = f"s3://{bucket}/{prefix}"
    with storage_errors(uri, s3):
        pages = iter(s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, StartAfter=start_after))
    while True:
        with storage_errors(uri, s3):
            page = next(pages, None)
        if page is None:
            return
        # botocore parses other XML as an empty listing, and stops silently if a truncated listing has no token.
        if "IsTruncated" not in page or (page["IsTruncated"] and not page.get("NextContinuationToken")):
            raise StorageUnavailable(f"the answer for {uri} is not a complete listing of objects: {CHECK_ENDPOINT}")
        for entry in page.get("Contents", ()):
            key, size = entry.get("Key"), entry.get("Size")
            if key is None or size is None or not entry.get("ETag"):
                missing = "Key" if key is None else "Size" if size is None else "ETag"
                raise StorageUnavailable(
                    f"the listing of {uri} has an entry without {missing} ({line(key)}): "
                    "enqueue the recordings by their URIs"
                )
            if size or not key.endswith("/"):
                yield ListedObject(str(key), normalise_etag(entry["ETag"]), int(size))


@contextmanager
def storage_errors(uri: str, s3: Any = None) -> Iterator[None]:
    """Convert botocore's errors to Tussis errors, with ``uri`` in the message.

    With ``s3``, it distinguishes a missing object from an endpoint whose URL already contains a bucket. Raises the
    errors of :mod:`tussis.shared.s3_refusals`, and :class:`StorageCredentials`, :class:`StorageUnavailable`,
    :class:`DownloadCut`, :class:`DownloadDamaged`, :class:`SettingsInvalid` and :class:`InvalidUri`.
    """
    from botocore import exceptions as botocore
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except botocore.ClientError as error:
        refused = refusal(error, uri)
        if s3 is not None and isinstance(refused, ObjectMissing | BucketMissing):
            _check_endpoint(s3, uri)
        raise refused from error
    except (
        botocore.NoCredentialsError,
        botocore.PartialCredentialsError,
        botocore.CredentialRetrievalError,
        botocore.TokenRetrievalError,
        botocore.SSOError,
    ) as error:
        raise StorageCredentials(f"no credentials for {uri} ({line(error)}): {CHECK_CREDENTIALS}") from error
    except (
        botocore.IncompleteReadError,
        botocore.ResponseStreamingError,
        HTTPError,  # a TLS error while a body is read; botocore does not convert it
    ) as error:
        raise DownloadCut(f"the download of {uri} ended before its last byte ({line(error)})") from error
    except botocore.FlexibleChecksumError as error:
        raise DownloadDamaged(
            f"the downloaded bytes of {uri} do not have the checksum that the object store names ({line(error)})"
        ) from error
    except ResponseParserError as error:
        # Not its text: that quotes the answer.
        raise StorageUnavailable(f"the answer for {uri} is not that of an object store: {CHECK_ENDPOINT}") from error
    except botocore.SSLError as error:
        raise StorageUnavailable(
            f"no TLS connection to the object store for {uri} ({line(error)}): {s3_tls_reason(error)}"
        ) from error
    except (botocore.ConnectionError, botocore.HTTPClientError) as error:
        raise StorageUnavailable(
            f"the object store does not answer for {uri} ({line(error)}): {CHECK_ENDPOINT}"
        ) from error
    except botocore.ParamValidationError as error:
        raise InvalidUri(f"S3 does not allow the URI {uri} ({line(error)}): check the bucket and the key") from error
    except botocore.NoRegionError as error:
        raise SettingsInvalid("no region is set for S3: set AWS_REGION or TUSSIS_S3_ENDPOINT_URL") from error
    except botocore.BotoCoreError as error:
        raise StorageUnavailable(f"the request for {uri} failed ({line(error)})") from error
    except ValueError as error:  # raised by botocore for a wrong date or number in a header or a listing
        raise StorageUnavailable(f"the answer for {uri} is not valid ({line(error)}): {CHECK_ENDPOINT}") from error


def s3_tls_reason(error: Exception) -> str:
    """Why TLS with the object store or SQS failed, and what to do. boto3 reads the CA from ``AWS_CA_BUNDLE``."""
    certificate = "client_cert in the AWS configuration file"
    return tls_reason(str(error), ca="AWS_CA_BUNDLE", certificate=certificate) or CHECK_ENDPOINT


def _check_endpoint(s3: Any, uri: str) -> None:
    """Raise :class:`SettingsInvalid` if the endpoint's URL has a path or this bucket's name, and the bucket is missing.

    With the endpoint ``https://host/clinic``, a request looks for the key ``clinic/a.wav`` in the bucket ``clinic`` and
    does not find it. Some gateways do serve S3 below a path, so the function checks the bucket itself.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    bucket = uri.removeprefix("s3://").partition("/")[0]
    shown = redacted(s3.meta.endpoint_url, "AWS_ENDPOINT_URL_S3")
    endpoint = urlsplit(s3.meta.endpoint_url)
    if not endpoint.path.strip("/") and not (endpoint.hostname or "").startswith(f"{bucket}."):
        return
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) == 404:
            raise SettingsInvalid(
                f"{uri} is not found, and TUSSIS_S3_ENDPOINT_URL ({shown}) has no bucket "
                f"{bucket}: write the URL of the object store without a bucket"
            ) from None
    except BotoCoreError:
        return  # the caller raises the error of the first answer
