"""Messages that are signed as SNS signs them, with a key of the tests."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.s3_events import TOPIC, sns

CERTIFICATE_URL = "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem"


class Signer:
    """A key with its certificate, and what was fetched: every URL of SNS has the certificate."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(65_537, 2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(self._key, SHA256())
        )
        self._pem = certificate.public_bytes(Encoding.PEM)
        self.fetched: list[str] = []

    def fetch(self, url: str) -> bytes:
        """In the place of HTTPS."""
        self.fetched.append(url)
        return self._pem

    def notification(self, body: str, version: str = "1", **fields: Any) -> dict[str, Any]:
        """A signed notification."""
        return self.sign(sns(body) | fields, version)

    def sign(self, message: dict[str, Any], version: str = "1") -> dict[str, Any]:
        """The message with its signature. The fields are those of the developer guide of SNS."""
        if message["Type"] == "Notification":
            names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
        else:
            names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
        text = "".join(f"{name}\n{message[name]}\n" for name in names if message.get(name) is not None)
        digest = SHA1() if version == "1" else SHA256()
        signature = self._key.sign(text.encode("utf-8", "surrogatepass"), padding.PKCS1v15(), digest)
        signed = {name: value for name, value in message.items() if value is not None}
        return signed | {"SignatureVersion": version, "Signature": base64.b64encode(signature).decode()}


def confirmation(topic: str = TOPIC) -> dict[str, Any]:
    """The message with which SNS asks for the confirmation of a subscription."""
    return sns("You have chosen to subscribe to the topic", topic) | {
        "Type": "SubscriptionConfirmation",
        "Subject": None,
        "Token": "2336412f37",
        "SubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription"
        f"&TopicArn={topic}&Token=2336412f37",
    }
