"""The errors of SQS, and the endpoint and region in the URL of an SQS queue."""

from __future__ import annotations

from typing import Any

import pytest
from botocore import exceptions as botocore

from tussis.producer.sqs import SqsQueue, sqs_errors
from tussis.shared.errors import SettingsInvalid, SqsRefused, SqsUnavailable, TussisError

URL = "https://sqs.eu-central-1.amazonaws.com/123456789012/uploads"


def refusal(code: str, status: int) -> botocore.ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "in\nwords"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.ClientError(answer, "ReceiveMessage")


@pytest.mark.parametrize(
    ("error", "kind", "part"),
    [
        (refusal("AccessDenied", 403), SqsRefused, "sqs:ReceiveMessage, sqs:DeleteMessage"),
        (refusal("InvalidClientTokenId", 403), SqsRefused, "AWS_ACCESS_KEY_ID"),
        (refusal("AWS.SimpleQueueService.NonExistentQueue", 400), SqsRefused, "does not exist"),
        (refusal("QueueDoesNotExist", 400), SqsRefused, "does not exist"),
        (refusal("KmsAccessDenied", 400), SqsRefused, "kms:Decrypt"),
        (refusal("RequestThrottled", 403), SqsUnavailable, "ReceiveMessage: in words"),
        (refusal("InternalError", 500), SqsUnavailable, "at the moment"),
        (refusal("OverLimit", 403), SqsUnavailable, "at the moment"),
        (botocore.NoCredentialsError(), SqsRefused, "no credentials"),
        (botocore.EndpointConnectionError(endpoint_url=URL), SqsUnavailable, "does not answer"),
        (botocore.ReadTimeoutError(endpoint_url=URL), SqsUnavailable, "does not answer"),
        (botocore.ParamValidationError(report="bad"), SqsRefused, "check the URL"),
        (botocore.SSLError(endpoint_url=URL, error="certificate verify failed"), SqsRefused, "set AWS_CA_BUNDLE"),
        (botocore.SSLError(endpoint_url=URL, error="WRONG_VERSION_NUMBER"), SqsRefused, "does not speak TLS"),
        (botocore.SSLError(endpoint_url=URL, error="EOF occurred"), SqsUnavailable, "no TLS connection"),
    ],
    ids=range(15),
)
def test_errors_are_split_by_whether_they_end(error: Exception, kind: type[TussisError], part: str) -> None:
    with pytest.raises(kind) as told, sqs_errors(URL):
        raise error

    assert type(told.value) is kind
    assert part in str(told.value)
    assert URL in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("url", "region", "endpoint"),
    [
        (URL, "eu-central-1", "https://sqs.eu-central-1.amazonaws.com"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", "cn-north-1", "https://sqs.cn-north-1.amazonaws.com.cn"),
        ("https://sqs-fips.us-gov-west-1.amazonaws.com/1/q", "us-gov-west-1", None),
        ("https://vpce-1-2.sqs.eu-west-1.vpce.amazonaws.com/1/q", "eu-west-1", None),
        ("https://eu-west-2.queue.amazonaws.com/1/q", "eu-west-2", "https://eu-west-2.queue.amazonaws.com"),
        ("http://127.0.0.1:9324/000000000000/q", "ap-south-1", "http://127.0.0.1:9324"),
    ],
)
def test_the_url_of_the_queue_says_where_it_is(
    url: str, region: str, endpoint: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-south-1")
    meta = SqsQueue(url, 60)._client.meta
    assert meta.region_name == region
    assert endpoint in (None, meta.endpoint_url)


@pytest.mark.parametrize("url", ["uploads", "sqs://x/y", "https://", "https://sqs.eu-central-1.amazonaws.com", ""])
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(SettingsInvalid, match="not the URL of an SQS queue"):
        SqsQueue(url, 60)
