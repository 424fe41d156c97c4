"""Every S3 error code and every HTTP status has one decided error."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest
from botocore.exceptions import ClientError
from botocore.loaders import create_loader

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
from tussis.shared.s3_refusals import refusal

URI: Final = "s3://clinic/a.wav"

#: (status, code) of the list in the S3 API reference that a request of Tussis can meet, and of other stores.
CODES: Final[dict[tuple[int, str], type[TussisError]]] = {
    (301, "PermanentRedirect"): BucketElsewhere,
    (307, "Redirect"): StorageUnavailable,
    (307, "TemporaryRedirect"): StorageUnavailable,
    (400, "AuthorizationHeaderMalformed"): SettingsInvalid,
    (400, "BadDigest"): StorageUnavailable,
    (400, "BadRequest"): ObjectRefused,
    (400, "EntityTooLarge"): ObjectRefused,
    (400, "IncompleteBody"): StorageUnavailable,
    (400, "InvalidPart"): StorageUnavailable,
    (400, "InvalidPartOrder"): StorageUnavailable,
    (404, "NoSuchUpload"): StorageUnavailable,
    (400, "CredentialsNotSupported"): StorageCredentials,
    (400, "ExpiredToken"): StorageCredentials,
    (400, "IllegalLocationConstraintException"): BucketElsewhere,
    (400, "InvalidAddressingHeader"): SettingsInvalid,
    (400, "InvalidArgument"): ObjectRefused,
    (400, "InvalidBucketName"): ObjectRefused,
    (400, "InvalidDigest"): ObjectRefused,
    (400, "InvalidEncryptionAlgorithmError"): ObjectRefused,
    (400, "InvalidRequest"): ObjectRefused,
    (400, "InvalidToken"): StorageCredentials,
    (400, "InvalidURI"): ObjectRefused,
    (400, "KMS.DisabledException"): StorageAccessDenied,
    (400, "KMS.KMSInvalidStateException"): StorageAccessDenied,
    (400, "KMS.NotFoundException"): ObjectRefused,
    (400, "KMS.ThrottlingException"): StorageUnavailable,
    (400, "KMS.SomethingNewException"): StorageAccessDenied,
    (400, "KeyTooLongError"): ObjectRefused,
    (400, "MissingSecurityHeader"): ObjectRefused,
    (400, "RequestTimeout"): StorageUnavailable,
    (400, "TokenRefreshRequired"): StorageCredentials,
    (400, "UserKeyMustBeSpecified"): ObjectRefused,
    (400, "SomethingNew"): ObjectRefused,
    (403, "AccessDenied"): StorageAccessDenied,
    (403, "AccountProblem"): StorageAccessDenied,
    (403, "AllAccessDisabled"): StorageAccessDenied,
    (403, "InvalidAccessKeyId"): StorageCredentials,
    (403, "InvalidObjectState"): ObjectArchived,
    (403, "InvalidPayer"): StorageAccessDenied,
    (403, "InvalidSecurity"): StorageCredentials,
    (403, "NotSignedUp"): StorageAccessDenied,
    (403, "RequestTimeTooSkewed"): StorageCredentials,
    (403, "SignatureDoesNotMatch"): StorageCredentials,
    (404, "NoSuchBucket"): BucketMissing,
    (404, "NoSuchKey"): ObjectMissing,
    (404, "NoSuchVersion"): ObjectMissing,
    (405, "MethodNotAllowed"): ObjectMissing,
    (409, "OperationAborted"): StorageUnavailable,
    (412, "PreconditionFailed"): ObjectChanged,
    (416, "InvalidRange"): StorageUnavailable,
    (429, "TooManyRequests"): StorageUnavailable,
    (451, "UnavailableForLegalReasons"): ObjectRefused,
    (500, "InternalError"): StorageUnavailable,
    (501, "NotImplemented"): ObjectRefused,
    (503, "ServiceUnavailable"): StorageUnavailable,
    (503, "SlowDown"): StorageUnavailable,
    (503, "SomethingNew"): StorageUnavailable,
}
#: Documented, and met by no request that Tussis makes: uploads, policies, and the buckets themselves.
_OF_OTHER_REQUESTS: Final = """
    AmbiguousGrantByEmailAddress BadDigest BucketAlreadyExists BucketNotEmpty CrossLocationLoggingProhibited
    EntityTooSmall EntityTooLarge IllegalVersioningConfigurationException IncompleteBody
    IncorrectNumberOfFilesInPostRequest InlineDataTooLarge InvalidBucketState InvalidLocationConstraint InvalidPart
    InvalidPartOrder InvalidPolicyDocument InvalidStorageClass InvalidTargetBucketForLogging MalformedACLError
    MalformedPOSTRequest MalformedXML MaxMessageLengthExceeded MaxPostPreDataLengthExceededError MetadataTooLarge
    MissingContentLength MissingRequestBodyError NoLoggingStatusForKey NoSuchBucketPolicy
    NoSuchLifecycleConfiguration NoSuchUpload RestoreAlreadyInProgress RequestIsNotMultiPartContent
    RequestTorrentOfBucketError TooManyBuckets UnexpectedContent UnresolvableGrantByEmailAddress BucketAlreadyOwnedByYou
"""
#: What HEAD answers: a status alone.
STATUSES: Final[dict[int, type[TussisError]]] = {
    301: SettingsInvalid,
    302: SettingsInvalid,
    304: StorageUnavailable,
    307: SettingsInvalid,
    308: SettingsInvalid,
    400: ObjectRefused,
    401: StorageCredentials,
    402: StorageAccessDenied,
    403: StorageAccessDenied,
    404: ObjectMissing,
    405: ObjectMissing,
    406: StorageUnavailable,
    407: SettingsInvalid,
    408: StorageUnavailable,
    409: StorageUnavailable,
    410: ObjectMissing,
    411: ObjectRefused,
    412: ObjectChanged,
    413: ObjectRefused,
    414: ObjectRefused,
    415: ObjectRefused,
    416: StorageUnavailable,
    417: ObjectRefused,
    421: StorageUnavailable,
    423: StorageUnavailable,
    425: StorageUnavailable,
    429: StorageUnavailable,
    431: ObjectRefused,
    451: ObjectRefused,
    500: StorageUnavailable,
    501: ObjectRefused,
    502: StorageUnavailable,
    503: StorageUnavailable,
    504: StorageUnavailable,
    511: StorageUnavailable,
}


def told(
    status: int, code: str, message: str = "said\nso", operation: str = "GetObject", **headers: str
) -> TussisError:
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {
            "HTTPStatusCode": status,
            "HTTPHeaders": {k.replace("_", "-"): v for k, v in headers.items()},
        },
    }
    error = refusal(ClientError(response, operation), URI)
    assert "\n" not in str(error)
    assert "clinic" in str(error)
    return error


@pytest.mark.parametrize(("status", "code"), CODES)
@pytest.mark.parametrize("operation", ["GetObject", "HeadObject", "ListObjectsV2"])
def test_a_code_decides(status: int, code: str, operation: str) -> None:
    assert type(told(status, code, operation=operation)) is CODES[status, code]


def test_every_documented_code_is_decided() -> None:
    shapes = create_loader().load_service_model("s3", "service-2")["shapes"]
    documented = set(
        re.findall(r"<i>Code:</i>\s*([A-Z][A-Za-z.]{3,})", shapes["Error"]["members"]["Code"]["documentation"])
    )
    assert len(documented) > 70
    assert documented - {code for _, code in CODES} - set(_OF_OTHER_REQUESTS.split()) == set()


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_decides_where_there_is_no_code(status: int) -> None:
    assert type(told(status, str(status), operation="HeadObject")) is STATUSES[status]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 451])
def test_a_web_server_s_page_is_no_answer_about_an_object(status: int) -> None:
    assert type(told(status, str(status))) is StorageUnavailable


@pytest.mark.parametrize("operation", ["GetObject", "HeadObject"])
def test_a_redirect_with_a_region_is_the_bucket_s_and_without_one_the_endpoint_s(operation: str) -> None:
    elsewhere = told(301, "301", operation=operation, x_amz_bucket_region="eu-west-3")
    assert type(elsewhere) is BucketElsewhere
    assert "eu-west-3" in str(elsewhere)
    moved = told(301, "301", operation=operation, location="https://store.example/clinic/a.wav")
    assert type(moved) is SettingsInvalid
    assert "https://store.example/clinic/a.wav" in str(moved)


def test_a_version_that_cannot_be_is_missing() -> None:
    assert type(told(400, "InvalidArgument", "Invalid version id specified")) is ObjectMissing


def test_a_proxy_that_asks_for_a_login_is_named() -> None:
    assert "HTTP_PROXY" in str(told(407, "407"))


@pytest.mark.parametrize("operation", ["PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"])
def test_a_login_that_must_not_write_is_told_which_right_it_lacks(operation: str) -> None:
    denied = told(403, "AccessDenied", operation=operation)
    assert type(denied) is StorageAccessDenied
    assert "s3:PutObject" in str(denied)
    assert "s3:GetObject" not in str(denied)
