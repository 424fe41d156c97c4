"""Only messages that SNS signed for a topic of the settings are accepted."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.support.s3_events import TOPIC, record, records
from tests.support.signed_sns import CERTIFICATE_URL, Signer, confirmation
from tussis.shared.errors import SnsRefused, SnsUnavailable
from tussis.worker.gateway.sns import SnsMessages, is_sns_message, parse_topics, signed_text

BODY = records(record("clinic", "a.wav"))


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture
def messages(signer: Signer) -> SnsMessages:
    signer.fetched.clear()
    return SnsMessages(frozenset([TOPIC]), signer.fetch)


def test_the_signed_text_is_that_of_the_developer_guide() -> None:
    message = {
        "Type": "Notification",
        "MessageId": "4d4dc071-ddbf-465d-bba8-08f81c89da64",
        "TopicArn": "arn:aws:sns:us-east-2:123456789012:s4-MySNSTopic-1G1WEFCOXTC0P",
        "Subject": "My subject",
        "Message": "Test\nmessage",
        "Timestamp": "2019-01-31T04:37:04.321Z",
    }
    assert signed_text(message) == (
        b"Message\nTest\nmessage\nMessageId\n4d4dc071-ddbf-465d-bba8-08f81c89da64\nSubject\nMy subject\n"
        b"Timestamp\n2019-01-31T04:37:04.321Z\n"
        b"TopicArn\narn:aws:sns:us-east-2:123456789012:s4-MySNSTopic-1G1WEFCOXTC0P\nType\nNotification\n"
    )
    del message["Subject"]
    assert b"Subject" not in signed_text(message)


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("subject", ["Amazon S3 Notification", None])
def test_a_signed_message_is_accepted(signer: Signer, messages: SnsMessages, version: str, subject: str | None) -> None:
    message = signer.notification(BODY, version=version, Subject=subject)

    messages.verify(message)
    messages.verify(signer.notification("ä\x00\ud83d\ude00", version=version))

    assert is_sns_message(message)
    assert signer.fetched == [CERTIFICATE_URL]  # once


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"Message": BODY.replace("a.wav", "b.wav")}, "signature of the message is wrong"),
        ({"Timestamp": "2026-11-29T10:00:00.001Z"}, "signature of the message is wrong"),
        ({"Subject": "other"}, "signature of the message is wrong"),
        ({"Signature": "no base64!"}, "signature of the message is wrong"),
        ({"Signature": ""}, "signature of the message is wrong"),
        ({"SignatureVersion": "1"}, "signature of the message is wrong"),
        ({"SignatureVersion": "3"}, "version '3' of the signature is unknown"),
        ({"SignatureVersion": None}, "version None of the signature is unknown"),
        ({"TopicArn": TOPIC + "2"}, "is not in TUSSIS_SERVE_SNS_TOPICS"),
        ({"TopicArn": [TOPIC]}, "is not in TUSSIS_SERVE_SNS_TOPICS"),
        ({"Type": "Other"}, "the type 'Other' of the message is unknown"),
        ({"MessageId": 7}, "the field MessageId of the message is not text"),
    ],
    ids=range(12),
)
def test_a_changed_message_is_refused(signer: Signer, messages: SnsMessages, change: dict[str, Any], part: str) -> None:
    with pytest.raises(SnsRefused, match=part.replace("(", r"\(")):
        messages.verify(signer.notification(BODY, version="2") | change)


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
        "https://sns.eu-central-1.amazonaws.com.evil.example/SimpleNotificationService-0123456789abcdef.pem",
        "https://evil.example/sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
        "https://sns.eu-central-1.amazonaws.com:8443/SimpleNotificationService-0123456789abcdef.pem",
        "https://user@sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
        "https://sns.eu-central-1.amazonaws.com@evil.example/SimpleNotificationService-0123456789abcdef.pem",
        "https://mybucket.s3.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
        "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem\n",
        "https://sns.eu-central-1.amazonaws.com/../SimpleNotificationService-0123456789abcdef.pem",
        "https://sns.eu-central-1.amazonaws.com/?x=SimpleNotificationService-0123456789abcdef.pem",
        "file:///etc/ssl/x.pem",
        None,
    ],
    ids=range(12),
)
def test_certificates_come_from_sns_only(signer: Signer, messages: SnsMessages, url: str | None) -> None:
    with pytest.raises(SnsRefused, match="SigningCertURL is not an address of SNS"):
        messages.verify(signer.notification(BODY) | {"SigningCertURL": url})
    assert signer.fetched == []


def test_other_regions_and_china_have_certificates_too(signer: Signer, messages: SnsMessages) -> None:
    for host in ("sns.us-gov-west-1.amazonaws.com", "sns.cn-north-1.amazonaws.com.cn"):
        url = f"https://{host}/SimpleNotificationService-0123456789abcdef.pem"
        messages.verify(signer.notification(BODY) | {"SigningCertURL": url})


def test_a_file_that_is_no_certificate_and_a_server_that_is_away(signer: Signer) -> None:
    message = signer.notification(BODY)
    with pytest.raises(SnsRefused):
        SnsMessages(frozenset([TOPIC]), lambda url: b"<html>").verify(message)

    def away(url: str) -> bytes:
        raise SnsUnavailable("away")

    with pytest.raises(SnsUnavailable):
        SnsMessages(frozenset([TOPIC]), away).verify(message)


def test_messages_with_a_known_certificate_do_not_wait_for_another_one(signer: Signer) -> None:
    other = CERTIFICATE_URL.replace("0123456789abcdef", "fedcba9876543210")
    began, ends = threading.Event(), threading.Event()

    def fetch(url: str) -> bytes:
        if url == other:
            began.set()
            ends.wait(30)
        return signer.fetch(url)

    messages = SnsMessages(frozenset([TOPIC]), fetch)
    message = signer.notification(BODY)
    messages.verify(message)
    slow = threading.Thread(target=messages.verify, args=[message | {"SigningCertURL": other}])
    slow.start()
    assert began.wait(30)
    messages.verify(message)
    with pytest.raises(SnsUnavailable, match="SNS sends the message again"):
        messages.verify(message | {"SigningCertURL": CERTIFICATE_URL.replace("0123", "3210")})
    ends.set()
    slow.join(30)
    messages.verify(message | {"SigningCertURL": CERTIFICATE_URL.replace("0123", "3210")})


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_subscription_is_confirmed_at_sns_only(signer: Signer, messages: SnsMessages, version: str) -> None:
    message = signer.sign(confirmation(), version)
    messages.verify(message)
    messages.confirm(message)
    assert signer.fetched == [CERTIFICATE_URL, message["SubscribeURL"]]
    with pytest.raises(SnsRefused, match="signature"):
        messages.verify(message | {"Token": "other"})
    for url in ("https://evil.example/?Action=ConfirmSubscription&x=1", "http://127.0.0.1/", None):
        with pytest.raises(SnsRefused, match="SubscribeURL is not an address of SNS"):
            messages.confirm(message | {"SubscribeURL": url})


def test_topics_are_arns() -> None:
    assert parse_topics(f" {TOPIC}  {TOPIC}.fifo ") == {TOPIC, f"{TOPIC}.fifo"}
    assert parse_topics(None) == frozenset()
    with pytest.raises(ValueError, match="uploads"):
        parse_topics(f"{TOPIC} uploads")
