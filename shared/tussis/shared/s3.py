"""Talking to the object store: the client, what an object is, a listing, and every fault as one of our errors.

boto3 takes a quarter of a second to import and is loaded on the first call, never at import.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

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
from tussis.shared.s3_refusals import CHECK_CREDENTIALS, CHECK_ENDPOINT, line, refusal

if TYPE_CHECKING:
    from tussis.shared.settings import Settings

# Seconds. Two tries and the pause between them end within 10 s where nothing answers.
_CONNECT_TIMEOUT_S = 3.0
_READ_TIMEOUT_S = 3.5
_TRIES = 2

#: What an object store's own headers start with: Amazon's and its likes', Google's, SeaweedFS'.
_OF_A_STORE = ("x-amz-", "x-goog-", "seaweed-")


@dataclass(frozen=True)
class ObjectHead:
    """What S3 says about an object: the entity tag without quotes, the version id (None in a bucket without), bytes.

    ``size_bytes`` is None where the answer names no length.
    """

    etag: str
    version_id: str | None
    size_bytes: int | None


@dataclass(frozen=True)
class ListedObject:
    """One entry of a listing. ``etag`` is without quotes."""

    key: str
    etag: str
    size_bytes: int


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
        client = session.client("s3", endpoint_url=endpoint, region_name=region, config=config)
    except InvalidRegionError as error:
        raise SettingsInvalid(f"AWS_REGION is wrong: {line(error)}") from None
    except ValueError as error:
        raise SettingsInvalid(
            f"TUSSIS_S3_ENDPOINT_URL is wrong: {error}; write http://host:port or https://host"
        ) from None
    except BotoCoreError as error:
        raise StorageCredentials(f"the configuration of boto3 is wrong: {line(error)}") from error
    client.meta.events.register_first("needs-retry.s3.HeadBucket", _redirect_no_further)
    return client


def _redirect_no_further(request_dict: dict[str, Any], **_: object) -> None:
    """Keep botocore from following a redirect of HEAD on a bucket.

    After a redirect botocore asks for the bucket's region by that request. Where this one is redirected too, as by a
    captive portal, botocore asks again for each answer until RecursionError (botocore 1.44, ``utils.py``,
    ``S3RegionRedirectorv2``). The region is in the first answer.
    """
    request_dict.get("context", {}).get("s3_redirect", {})["redirected"] = True


def head_object(s3: Any, bucket: str, key: str, version_id: str | None = None) -> ObjectHead:
    """Ask for one object.

    An answer to HEAD has no body, so that it does not tell a missing bucket from a missing key, or wrong credentials
    from a missing right; only then the first byte is asked for as well. Raises what :func:`storage_errors` does.
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
            raise  # it came back in between: the first answer stands
    size = answer.get("ContentLength")
    return ObjectHead(entity_tag(answer, uri), answer.get("VersionId"), None if size is None else int(size))


def entity_tag(answer: Mapping[str, Any], uri: str) -> str:
    """The entity tag, without quotes, of an answer to HEAD or GET.

    Raises :class:`StorageUnavailable` where there is none, and for a web page (a captive portal, a proxy's notice)
    that carries one: an object store adds headers of its own to each answer.
    """
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    kind = str(answer.get("ContentType", ""))
    if kind.startswith("text/html") and not any(name.startswith(_OF_A_STORE) for name in headers):
        raise StorageUnavailable(f"a web page was answered for {uri}, by no object store: {CHECK_ENDPOINT}")
    etag = normalise_etag(str(answer.get("ETag") or ""))
    if not etag:
        raise StorageUnavailable(
            f"the answer for {uri} has no entity tag (header ETag), by which its bytes are known: "
            "is TUSSIS_S3_ENDPOINT_URL right, and does no proxy remove the header?"
        )
    return etag


def list_objects(s3: Any, bucket: str, prefix: str, start_after: str = "") -> Iterator[ListedObject]:
    """The objects whose key starts with ``prefix``, in S3's order, behind the key ``start_after``.

    Streams: a page of 1000 is held at a time. The empty objects that consoles leave as folders (``name/``) are left
    out. Raises what :func:`storage_errors` does, and :class:`StorageUnavailable` for an answer that is no listing.
    """
    uri = f"s3://{bucket}/{prefix}"
    with storage_errors(uri, s3):
        pages = iter(s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, StartAfter=start_after))
    while True:
        with storage_errors(uri, s3):
            page = next(pages, None)
        if page is None:
            return
        # Other XML reads as an empty listing. botocore ends silently where a listing goes on without a token.
        if "IsTruncated" not in page or (page["IsTruncated"] and not page.get("NextContinuationToken")):
            raise StorageUnavailable(f"what answers for {uri} is no complete listing of objects: {CHECK_ENDPOINT}")
        for entry in page.get("Contents", ()):
            key, size = entry.get("Key"), entry.get("Size")
            if key is None or size is None or not entry.get("ETag"):
                missing = "Key" if key is None else "Size" if size is None else "ETag"
                raise StorageUnavailable(
                    f"the listing of {uri} has an entry without {missing} ({line(key)}): name the recordings one by one"
                )
            if size or not key.endswith("/"):
                yield ListedObject(str(key), normalise_etag(entry["ETag"]), int(size))


@contextmanager
def storage_errors(uri: str, s3: Any = None) -> Iterator[None]:
    """Turn botocore's errors into ours, naming ``uri``.

    With ``s3``, a missing object is told from an endpoint whose URL names a bucket already. Raises what
    :mod:`tussis.shared.s3_refusals` decides, and :class:`StorageCredentials`, :class:`StorageUnavailable`,
    :class:`DownloadCut`, :class:`SettingsInvalid` and :class:`InvalidUri`.
    """
    from botocore import exceptions as botocore
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except botocore.ClientError as error:
        told = refusal(error, uri)
        if s3 is not None and isinstance(told, ObjectMissing | BucketMissing):
            _check_endpoint(s3, uri)
        raise told from error
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
        HTTPError,  # of TLS, while a body is read: botocore passes these on as they are
    ) as error:
        raise DownloadCut(f"{uri}: the download broke off ({line(error)})") from error
    except botocore.FlexibleChecksumError as error:
        raise DownloadDamaged(
            f"{uri}: the bytes that arrived do not have the checksum that came with them ({line(error)})"
        ) from error
    except (botocore.ConnectionError, botocore.HTTPClientError, ResponseParserError) as error:
        raise StorageUnavailable(f"no object store answers for {uri} ({line(error)}): {CHECK_ENDPOINT}") from error
    except botocore.ParamValidationError as error:
        raise InvalidUri(f"not an address in S3: {uri} ({line(error)})") from error
    except botocore.NoRegionError as error:
        raise SettingsInvalid("no region for S3: set AWS_REGION, or TUSSIS_S3_ENDPOINT_URL") from error
    except botocore.BotoCoreError as error:
        raise StorageUnavailable(f"the request for {uri} failed ({line(error)})") from error
    except ValueError as error:  # botocore's, of a date or a number in a header or a listing
        raise StorageUnavailable(
            f"the answer for {uri} cannot be read ({line(error)}): is TUSSIS_S3_ENDPOINT_URL right?"
        ) from error


def _check_endpoint(s3: Any, uri: str) -> None:
    """Raise :class:`SettingsInvalid` where the endpoint's URL has a path, or this bucket's name, and no such bucket.

    ``https://host/clinic`` as the endpoint asks for the key ``clinic/a.wav`` in the bucket ``clinic``, and finds
    nothing. Some gateways do serve S3 below a path: the bucket itself is asked for.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    bucket = uri.removeprefix("s3://").partition("/")[0]
    endpoint = urlsplit(s3.meta.endpoint_url)
    if not endpoint.path.strip("/") and not (endpoint.hostname or "").startswith(f"{bucket}."):
        return
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) == 404:
            raise SettingsInvalid(
                f"TUSSIS_S3_ENDPOINT_URL ({endpoint.netloc}{endpoint.path}) does not lead to the bucket {bucket}, and "
                f"{uri} is not found: write the store's address without a bucket"
            ) from None
    except BotoCoreError:
        return  # the first answer stands
