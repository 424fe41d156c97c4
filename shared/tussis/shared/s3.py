"""Talking to the object store: the client, what an object is, a listing, and every fault as one of our errors.

boto3 takes a quarter of a second to import and is loaded on the first call, never at import.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tussis.shared.errors import (
    BucketMissing,
    DownloadCut,
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
from tussis.shared.messages import normalise_etag

if TYPE_CHECKING:
    from tussis.shared.settings import Settings

# Seconds. Two tries and the pause between them end within 10 s where nothing answers.
_CONNECT_TIMEOUT_S = 3.0
_READ_TIMEOUT_S = 3.5
_TRIES = 2

_MISSING_OBJECT = frozenset({"NoSuchKey", "NoSuchVersion"})
_CREDENTIALS = frozenset(
    {
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidToken",
        "TokenRefreshRequired",
        "InvalidSecurity",
        "UnrecognizedClientException",
        "RequestTimeTooSkewed",
    }
)
_REGION = frozenset({"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"})
_CHECK_CREDENTIALS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the role"
_CHECK_ENDPOINT = "is it running, and is TUSSIS_S3_ENDPOINT_URL right?"


@dataclass(frozen=True)
class ObjectHead:
    """What S3 says about an object: the entity tag without quotes, the version id (None in a bucket without), bytes."""

    etag: str
    version_id: str | None
    size_bytes: int


@dataclass(frozen=True)
class ListedObject:
    """One line of a listing. ``etag`` is without quotes, ``modified_at`` in seconds since the epoch."""

    key: str
    etag: str
    size_bytes: int
    modified_at: float


def s3_client(settings: Settings, *, connections: int = 16) -> Any:
    """A boto3 client for the configured endpoint; ``connections`` is how many it keeps open at most.

    Credentials and region are boto3's own. A fault is reported within 10 s: two tries, :data:`_CONNECT_TIMEOUT_S` and
    :data:`_READ_TIMEOUT_S` each. Raises :class:`SettingsInvalid` and :class:`StorageCredentials`.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, InvalidRegionError

    endpoint = settings.s3_endpoint_url
    config = Config(
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": _TRIES},
        max_pool_connections=connections,
        tcp_keepalive=True,
        # Stores other than Amazon's are rarely reachable as BUCKET.HOST, and older ones refuse checksum trailers.
        s3={"addressing_style": "path"} if endpoint else {},
        request_checksum_calculation="when_required",
        # botocore's own is put together anew for each request, which takes longer than signing it.
        user_agent=f"tussis boto3/{boto3.__version__}",
    )
    try:
        session = boto3.session.Session()
        # Every S3 request is signed for a region; a store of one's own has none, and takes this one.
        region = session.region_name or ("us-east-1" if endpoint else None)
        return session.client("s3", endpoint_url=endpoint, region_name=region, config=config)
    except InvalidRegionError as error:
        raise SettingsInvalid(f"AWS_REGION is wrong: {_line(error)}") from None
    except ValueError as error:
        raise SettingsInvalid(
            f"TUSSIS_S3_ENDPOINT_URL is wrong: {error}; write http://host:port or https://host"
        ) from None
    except BotoCoreError as error:
        raise StorageCredentials(f"the configuration of boto3 is wrong: {_line(error)}") from error


def head_object(s3: Any, bucket: str, key: str, version_id: str | None = None) -> ObjectHead:
    """Ask for one object.

    An answer to HEAD has no body to tell a missing bucket from a missing key, or wrong credentials from a missing
    right; only then the first byte is asked for as well. Raises what :func:`storage_errors` does.
    """
    from botocore.exceptions import ClientError

    uri = f"s3://{bucket}/{key}"
    which = {"Bucket": bucket, "Key": key} | ({"VersionId": version_id} if version_id else {})
    with storage_errors(uri):
        try:
            answer = s3.head_object(**which)
        except ClientError as error:
            if str(error.response["Error"].get("Code", "")) not in ("400", "403", "404", "405"):
                raise
            s3.get_object(**which, Range="bytes=0-0")["Body"].close()
            raise  # it came back in between: the first answer stands
    return ObjectHead(normalise_etag(answer["ETag"]), answer.get("VersionId"), int(answer["ContentLength"]))


def list_objects(s3: Any, bucket: str, prefix: str, start_after: str = "") -> Iterator[ListedObject]:
    """The objects whose key starts with ``prefix``, in S3's order, behind the key ``start_after``.

    Streams: a page of 1000 is held at a time. The empty objects that consoles leave as folders (``name/``) are left
    out. Raises what :func:`storage_errors` does.
    """
    uri = f"s3://{bucket}/{prefix}"
    with storage_errors(uri):
        pages = iter(s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, StartAfter=start_after))
    while True:
        with storage_errors(uri):
            page = next(pages, None)
        if page is None:
            return
        for entry in page.get("Contents", ()):
            key, size = str(entry["Key"]), int(entry["Size"])
            if size or not key.endswith("/"):
                yield ListedObject(key, normalise_etag(entry["ETag"]), size, entry["LastModified"].timestamp())


@contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Turn botocore's errors into ours, naming ``uri``.

    Raises :class:`ObjectMissing`, :class:`BucketMissing`, :class:`ObjectChanged`, :class:`ObjectArchived`,
    :class:`StorageAccessDenied`, :class:`StorageCredentials`, :class:`StorageUnavailable`, :class:`DownloadCut`,
    :class:`SettingsInvalid` and :class:`InvalidUri`.
    """
    from botocore import exceptions as botocore
    from botocore.parsers import ResponseParserError

    try:
        yield
    except botocore.ClientError as error:
        raise _refusal(error, uri) from error
    except (
        botocore.NoCredentialsError,
        botocore.PartialCredentialsError,
        botocore.CredentialRetrievalError,
        botocore.TokenRetrievalError,
        botocore.SSOError,
    ) as error:
        raise StorageCredentials(f"no credentials for {uri} ({_line(error)}): {_CHECK_CREDENTIALS}") from error
    except (
        botocore.IncompleteReadError,
        botocore.ResponseStreamingError,
        botocore.FlexibleChecksumError,
    ) as error:
        raise DownloadCut(f"{uri}: the download broke off ({_line(error)})") from error
    except (botocore.ConnectionError, botocore.HTTPClientError, ResponseParserError) as error:
        raise StorageUnavailable(f"no object store answers for {uri} ({_line(error)}): {_CHECK_ENDPOINT}") from error
    except botocore.ParamValidationError as error:
        raise InvalidUri(f"not an address in S3: {uri} ({_line(error)})") from error
    except botocore.NoRegionError as error:
        raise SettingsInvalid("no region for S3: set AWS_REGION, or TUSSIS_S3_ENDPOINT_URL") from error
    except botocore.BotoCoreError as error:
        raise StorageUnavailable(f"the request for {uri} failed ({_line(error)})") from error


def _refusal(error: Any, uri: str) -> TussisError:
    """The error for an answer of the store that is not a success."""
    answer = error.response.get("Error", {})
    code = str(answer.get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    bucket = uri.removeprefix("s3://").partition("/")[0]
    said = _line(answer.get("Message") or code or status)
    if code == "NoSuchBucket":
        return BucketMissing(f"the bucket {bucket} does not exist ({uri}): is its name right?")
    if status == 412 or code == "PreconditionFailed":
        return ObjectChanged(f"{uri} is no longer the version that the job names: enqueue it again")
    if code == "InvalidObjectState":
        return ObjectArchived(f"{uri} is archived ({said}): restore it, then enqueue it again")
    if code in _CREDENTIALS:
        return StorageCredentials(f"the object store refuses the credentials for {uri} ({said}): {_CHECK_CREDENTIALS}")
    if code in _REGION or status == 301:
        return SettingsInvalid(f"the bucket {bucket} is in another region ({said}): set AWS_REGION")
    # An answer without a code is a web server's; to HEAD, S3 itself answers without.
    if (not code or code.isdigit()) and status < 500 and error.operation_name != "HeadObject":
        return StorageUnavailable(f"what answers for {uri} is no object store ({status}): {_CHECK_ENDPOINT}")
    # 405 is the answer for a version that is the mark of a deletion.
    if status in (404, 405) or code in _MISSING_OBJECT or (code == "InvalidArgument" and "version" in said.lower()):
        return ObjectMissing(f"{uri} does not exist, or not in this version ({said}): is the key right?")
    if status in (401, 403):
        return StorageAccessDenied(
            f"the object store refuses access to {uri} ({said}): allow s3:GetObject, and s3:ListBucket, without which "
            "a missing key is refused as well"
        )
    return StorageUnavailable(f"the object store answered {status or code} for {uri} ({said}): try again later")


def _line(text: object) -> str:
    """One line of at most 300 characters."""
    return " ".join(str(text).split())[:300]
