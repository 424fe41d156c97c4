"""The Tussis error for each S3 error code and HTTP status of an unsuccessful answer of the object store.

The codes are those of Amazon's "Error responses" (S3 API reference, "List of error codes") that a GET, a HEAD, a
listing or an upload can return, and those that other stores and gateways add. The code selects the error. If the code
is unknown, the status selects it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tussis.shared.errors import (
    BucketElsewhere,
    BucketMissing,
    ObjectArchived,
    ObjectChanged,
    ObjectMissing,
    ObjectRefused,
    SettingsInvalid,
    StorageAccessDenied,
    StorageCredentials,
    StorageUnavailable,
    TussisError,
)
from tussis.shared.redaction import without_logins

CHECK_CREDENTIALS: Final = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the role"
CHECK_ENDPOINT: Final = "check TUSSIS_S3_ENDPOINT_URL, and that the object store runs"

_BY_CLASS: Final[dict[type[TussisError], str]] = {
    BucketMissing: "NoSuchBucket",
    # MethodNotAllowed is the answer for a version that is a delete marker.
    ObjectMissing: "NoSuchKey NoSuchVersion NotFound MethodNotAllowed",
    ObjectChanged: "PreconditionFailed",
    ObjectArchived: "InvalidObjectState",
    BucketElsewhere: "PermanentRedirect IllegalLocationConstraintException",
    # The request for this object is wrong, or the store cannot execute it. A repeated request is refused again.
    ObjectRefused: (
        "BadRequest InvalidArgument InvalidBucketName InvalidDigest InvalidRequest InvalidURI KeyTooLongError "
        "MalformedXML MissingSecurityHeader NotImplemented UserKeyMustBeSpecified InvalidEncryptionAlgorithmError "
        "KMS.NotFoundException UnavailableForLegalReasons"
    ),
    StorageAccessDenied: (
        "AccessDenied AccountProblem AllAccessDisabled CrossLocationLoggingProhibited Forbidden InvalidPayer "
        "NotSignedUp UnauthorizedAccess AccessPointAccessDenied KMS.DisabledException KMS.KMSInvalidStateException "
        "KMS.AccessDeniedException"
    ),
    StorageCredentials: (
        "CredentialsNotSupported ExpiredToken ExpiredTokenException InvalidAccessKeyId InvalidSecurity InvalidToken "
        "MissingAuthenticationToken RequestExpired RequestTimeTooSkewed SignatureDoesNotMatch TokenRefreshRequired "
        "Unauthorized UnrecognizedClientException AuthorizationQueryParametersError XAmzContentSHA256Mismatch"
    ),
    SettingsInvalid: "AuthorizationHeaderMalformed InvalidAddressingHeader ProxyAuthenticationRequired",
    StorageUnavailable: (
        "InternalError OperationAborted ConditionalRequestConflict InvalidRange Redirect TemporaryRedirect "
        "RequestTimeout RequestTimeoutException ServiceUnavailable SlowDown Throttling ThrottlingException "
        "TooManyRequests RequestLimitExceeded BandwidthLimitExceeded PriorRequestNotComplete Busy "
        # An upload whose bytes or parts the store does not have as they were sent. A new upload may succeed.
        "BadDigest IncompleteBody InvalidPart InvalidPartOrder NoSuchUpload "
        "KMS.ThrottlingException KMS.KMSInternalException"
    ),
}
#: S3's error code -> Tussis error.
CODES: Final[Mapping[str, type[TussisError]]] = {
    code: kind for kind, codes in _BY_CLASS.items() for code in codes.split()
}

#: HTTP status -> error for an answer whose code is unknown. Every other status is a transient error: 5xx, 408, 409,
#: 421, 423, 425, 429.
STATUSES: Final[Mapping[int, type[TussisError]]] = {
    **dict.fromkeys((400, 411, 413, 414, 415, 417, 422, 431, 451, 501), ObjectRefused),
    **dict.fromkeys((401,), StorageCredentials),
    **dict.fromkeys((402, 403), StorageAccessDenied),
    **dict.fromkeys((404, 405, 410), ObjectMissing),
    **dict.fromkeys((407,), SettingsInvalid),
    **dict.fromkeys((412,), ObjectChanged),
}


def refusal(error: Any, uri: str) -> TussisError:
    """Convert botocore's ``ClientError`` about ``uri`` to a Tussis error."""
    answer = error.response.get("Error", {})
    meta = error.response.get("ResponseMetadata", {})
    headers: Mapping[str, str] = meta.get("HTTPHeaders", {})
    status = int(meta.get("HTTPStatusCode", 0))
    code = str(answer.get("Code", ""))
    detail = line(answer.get("Message") or code or status)
    if code.isdigit():  # set by botocore when the answer has no code
        code = ""
    if 300 <= status < 400 and not code:
        if "x-amz-bucket-region" in headers:
            code = "PermanentRedirect"
        elif status != 304:
            to = line(headers.get("location", "another address"))
            return SettingsInvalid(f"the endpoint redirects {uri} to {to} ({status}): {CHECK_ENDPOINT}")
    # An answer without a code comes from a web server. The exception is HEAD: S3's answers to it have no code.
    if not code and status < 500 and status != 407 and error.operation_name != "HeadObject":
        return StorageUnavailable(f"the answer for {uri} is not from an object store ({status}): {CHECK_ENDPOINT}")
    kind = CODES.get(code) or (StorageAccessDenied if code.startswith("KMS.") else STATUSES.get(status))
    if code == "InvalidArgument" and "version" in detail.lower():
        kind = ObjectMissing
    if kind is None or kind is StorageUnavailable:
        return StorageUnavailable(f"the object store answered {status or code} for {uri} ({detail}): try again later")
    bucket = uri.removeprefix("s3://").partition("/")[0]
    region = line(headers.get("x-amz-bucket-region") or answer.get("Region") or "another region")
    if kind is StorageAccessDenied and error.operation_name in _UPLOADS:
        return kind(_UPLOAD_DENIED.format(uri=uri, detail=detail))
    return kind(_MESSAGES[kind].format(uri=uri, bucket=bucket, detail=detail, region=region))


def line(text: object) -> str:
    """The text on one line, without the logins of URLs in it, cut to 300 characters."""
    return without_logins(" ".join(str(text).split()))[:300]


_MESSAGES: Final[Mapping[type[TussisError], str]] = {
    BucketMissing: "the bucket {bucket} does not exist ({uri}): check its name, and TUSSIS_S3_ENDPOINT_URL",
    ObjectMissing: "{uri} does not exist, or this version of it does not exist ({detail}): check the key",
    ObjectChanged: "{uri} is not the version that the job names: enqueue it again",
    ObjectArchived: "{uri} is archived ({detail}): restore it, then enqueue it again",
    ObjectRefused: (
        "the object store refuses the request for {uri} ({detail}) and will refuse it again: remove the cause, then "
        "enqueue it again"
    ),
    BucketElsewhere: (
        "the bucket {bucket} is in {region}, not at this endpoint ({uri}; {detail}): set AWS_REGION and "
        "TUSSIS_S3_ENDPOINT_URL for this bucket, then enqueue the object again"
    ),
    StorageAccessDenied: (
        "the object store denies access to {uri} ({detail}): allow s3:GetObject, s3:ListBucket (without it the store "
        "also denies access to a missing key) and, for an object encrypted with a KMS key, kms:Decrypt"
    ),
    StorageCredentials: "the object store refuses the credentials for {uri} ({detail}): " + CHECK_CREDENTIALS,
    SettingsInvalid: "the request for {uri} is rejected ({detail}): check AWS_REGION (the answer names {region}), "
    "TUSSIS_S3_ENDPOINT_URL, HTTP_PROXY and HTTPS_PROXY",
}
_UPLOADS: Final = frozenset({"PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"})
_UPLOAD_DENIED: Final = (
    "the object store denies the upload of {uri} ({detail}): allow s3:PutObject, s3:AbortMultipartUpload and, for a "
    "bucket encrypted with a KMS key, kms:GenerateDataKey and kms:Decrypt"
)
