"""Messages of Amazon SNS over HTTPS: their signatures, and the confirmation of subscriptions.

As in the SNS developer guide, "Verifying the signatures of Amazon SNS messages": the signature is checked with the
certificate at ``SigningCertURL``, which must be at an address of SNS. Signature version 1 is SHA-1, 2 is SHA-256.
"""

from __future__ import annotations

import base64
import http.client
import re
import threading
import urllib.request
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.error import HTTPError

from tussis.shared.errors import SnsRefused, SnsUnavailable
from tussis.shared.uris import shown

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

_HOST: Final = r"https://sns\.[a-z0-9-]{3,40}\.amazonaws\.com(?:\.cn)?"
_CERTIFICATE: Final = re.compile(rf"{_HOST}/SimpleNotificationService-[A-Za-z0-9]{{8,128}}\.pem")
_CONFIRMATION: Final = re.compile(rf"{_HOST}/\?Action=ConfirmSubscription&[!-~]+")
_TOPIC: Final = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]{1,256}(?:\.fifo)?")

_NOTIFICATION: Final = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_SUBSCRIPTION: Final = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
#: Type of a message -> the fields that are signed, in their order.
SIGNED: Final = {
    "Notification": _NOTIFICATION,
    "SubscriptionConfirmation": _SUBSCRIPTION,
    "UnsubscribeConfirmation": _SUBSCRIPTION,
}
#: Fields without which a message is signed too.
_OPTIONAL: Final = frozenset({"Subject"})
#: Certificates that are kept. SNS uses one per region and replaces it once a year.
_KEPT: Final = 20
_FETCH_S: Final = 5.0
_MAX_BYTES: Final = 65_536

Fetch = Callable[[str], bytes]


def parse_topics(text: str | None) -> frozenset[str]:
    """The ARNs of topics in a setting. Raises ValueError with the one that is wrong."""
    topics = frozenset((text or "").split())
    for topic in topics:
        if not _TOPIC.fullmatch(topic):
            raise ValueError(topic)
    return topics


def is_sns_message(document: object) -> bool:
    """Whether the decoded JSON has the fields of a message that SNS signed."""
    return isinstance(document, dict) and {"Type", "TopicArn", "SigningCertURL", "Signature"} <= document.keys()


class SnsMessages:
    """Checks messages of the ``topics``. ``fetch`` gets the body at an https URL. Thread-safe."""

    def __init__(self, topics: frozenset[str], fetch: Fetch | None = None) -> None:
        self._topics = topics
        self._fetch = fetch_https if fetch is None else fetch
        self._fetching = threading.Lock()
        self._keys: dict[str, RSAPublicKey] = {}

    def verify(self, message: Mapping[str, Any]) -> None:
        """Raise :class:`SnsRefused` unless one of the topics sent the message, and :class:`SnsUnavailable`."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA1, SHA256

        topic = message.get("TopicArn")
        if not isinstance(topic, str) or topic not in self._topics:
            raise SnsRefused(f"the SNS topic {shown(topic)} is not in TUSSIS_SERVE_SNS_TOPICS")
        version = message.get("SignatureVersion")
        digest = {"1": SHA1, "2": SHA256}.get(version) if isinstance(version, str) else None
        if digest is None:
            raise SnsRefused(f"the version {shown(version)} of the signature is unknown: SNS has 1 and 2")
        signed = signed_text(message)
        try:
            signature = base64.b64decode(str(message.get("Signature")), validate=True)
            self._key(message.get("SigningCertURL")).verify(signature, signed, PKCS1v15(), digest())
        except (ValueError, InvalidSignature):
            raise SnsRefused("the signature of the message is wrong: SNS did not send it, or it was changed") from None

    def confirm(self, message: Mapping[str, Any]) -> None:
        """Confirm the subscription of a message that :meth:`verify` accepted. Raises the same errors."""
        url = message.get("SubscribeURL")
        if not isinstance(url, str) or not _CONFIRMATION.fullmatch(url):
            raise SnsRefused("the field SubscribeURL is not an address of SNS")
        self._fetch(url)

    def _key(self, url: object) -> RSAPublicKey:
        """The public key of the certificate at the URL. Raises ValueError for another file."""
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.x509 import load_pem_x509_certificate

        if not isinstance(url, str) or not _CERTIFICATE.fullmatch(url):
            raise SnsRefused("the field SigningCertURL is not an address of SNS")
        if (known := self._keys.get(url)) is not None:
            return known
        # One request at a time, and nobody waits for it: a flood of messages with wrong addresses occupies one thread.
        if not self._fetching.acquire(blocking=False):
            raise SnsUnavailable("another certificate of SNS is being fetched: SNS sends the message again")
        try:
            key = load_pem_x509_certificate(self._fetch(url)).public_key()
            if not isinstance(key, RSAPublicKey):
                raise SnsRefused(f"the certificate at {url} has no RSA key")
            while len(self._keys) >= _KEPT:
                del self._keys[next(iter(self._keys))]
            self._keys[url] = key
        finally:
            self._fetching.release()
        return key


def signed_text(message: Mapping[str, Any]) -> bytes:
    """What SNS signs: names and values of the fields, each on its line. Raises :class:`SnsRefused`."""
    fields = SIGNED.get(str(message.get("Type")))
    if fields is None:
        raise SnsRefused(f"the type {shown(message.get('Type'))} of the message is unknown")
    lines = []
    for name in fields:
        value = message.get(name)
        if value is None and name in _OPTIONAL:
            continue
        if not isinstance(value, str):
            raise SnsRefused(f"the field {name} of the message is not text")
        lines.append(f"{name}\n{value}\n")
    return "".join(lines).encode("utf-8", "surrogatepass")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any, **_options: Any) -> None:
        """Follow no redirect: it may lead to another host."""


def fetch_https(url: str) -> bytes:
    """The body at the URL of SNS. Raises :class:`SnsRefused` for an answer below 500, and :class:`SnsUnavailable`."""
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(url, timeout=_FETCH_S) as answer:
            body: bytes = answer.read(_MAX_BYTES)
            return body
    except HTTPError as error:
        error.close()
        if error.code >= 500 or error.code == 429:
            raise SnsUnavailable(f"SNS answered {error.code} for {_without_query(url)}") from None
        raise SnsRefused(f"SNS answered {error.code} for {_without_query(url)}") from None
    except (OSError, http.client.HTTPException) as error:
        raise SnsUnavailable(f"SNS does not answer for {_without_query(url)} ({error})") from None


def _without_query(url: str) -> str:
    """A confirmation has a secret in its query."""
    return url.partition("?")[0]
