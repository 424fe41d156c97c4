"""A client of S3 that sends GET for the next object of a bucket without botocore's preparation of a call.

For each call botocore resolves the endpoint, validates and serializes the parameters, runs some thirty handlers and
parses the answer: two thirds of the CPU time of a small download. :class:`RepeatedGet` takes the URL, the headers and
the signing data from botocore's last successful call for the bucket, and changes key, version and entity tag. It signs
with botocore's signer (the credentials are read anew for each request) and sends through the client's own HTTP session:
the same pool, proxies, certificates and time limits. Only the expected answer is used. After every other answer or
error botocore's whole call follows, with its tries, redirects and errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tussis.shared.messages import normalise_etag

_EXPRESS: Final = "identity_cache"
#: Keys with these segments may be another path to a proxy or to urllib3.
_PATH_SEGMENTS: Final = frozenset({"", ".", ".."})
_VERSION: Final = "?versionId="
#: The parameters of a call that may be short.
_SHORT: Final = frozenset({"Bucket", "Key", "IfMatch", "VersionId"})


@dataclass(frozen=True)
class _Request:
    """What the requests for the objects of one bucket have in common. ``url`` ends before the key."""

    url: str
    headers: Mapping[str, str]
    context: Mapping[str, Any]
    signer: Any


class RepeatedGet:
    """A boto3 client for S3 whose :meth:`get_object` is shorter. Everything else is the client's own.

    For one thread. It keeps one entry for each bucket.
    """

    def __init__(self, s3: Any) -> None:
        self._s3 = s3
        self._model = s3.meta.service_model.operation_model("GetObject")
        # An internal attribute of botocore. No public one gives the session that has the client's proxies and CA.
        # Without it, every call is botocore's.
        self._http: Any = getattr(getattr(s3, "_endpoint", None), "http_session", None)
        self._known: dict[str, _Request] = {}
        self._called: tuple[Mapping[str, Any], Any] | None = None
        self._timed_out = False
        s3.meta.events.register("before-call.s3.GetObject", self._before_call)
        s3.meta.events.register_first("needs-retry.s3.GetObject", self._needs_retry)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._s3, name)

    def get_object(self, **params: Any) -> Any:
        """As the client's. The short request is sent only for ``Bucket``, ``Key``, ``IfMatch`` and ``VersionId``.

        Its answer has the fields that :mod:`tussis.worker.pipeline.objects` reads, and no others.
        """
        ours = self._http is not None and "IfMatch" in params and params.keys() <= _SHORT
        bucket, key = str(params["Bucket"]), str(params["Key"])
        ours = ours and _PATH_SEGMENTS.isdisjoint(key.split("/"))
        self._timed_out = False
        if ours and (known := self._known.get(bucket)) is not None:
            answer = self._repeat(known, params)
            if answer is not None:
                return answer
            self._known.pop(bucket, None)
        self._called = None
        answer = self._s3.get_object(**params)
        if ours and answer["ResponseMetadata"].get("RetryAttempts") == 0:
            self._learn(bucket, key)
        return answer

    def _before_call(self, params: Mapping[str, Any], request_signer: Any, **_: object) -> None:
        self._called = params, request_signer

    def _needs_retry(self, caught_exception: Exception | None = None, **_: object) -> None:
        """End botocore's call after one try, if the short request was a try without an answer in time."""
        if self._timed_out and caught_exception is not None:
            raise caught_exception

    def _learn(self, bucket: str, key: str) -> None:
        from botocore.utils import percent_encode

        if self._called is None:
            return
        request, signer = self._called
        url, _, query = request["url"].partition("?")
        end = "/" + percent_encode(key, safe="/~")
        context = request["context"]
        # Not for S3 Express, access points and signatures that are not version 4, which have rules of their own.
        if (
            self._s3.meta.config.signature_version == "s3v4"
            and context.get("auth_type") in (None, "v4")
            and _EXPRESS not in context.get("signing", {})
            and ":" not in bucket
            and url.endswith(end)
            and (not query or query.startswith(_VERSION[1:]))
        ):
            headers = {name: str(value) for name, value in request["headers"].items() if name.lower() != "if-match"}
            self._known[bucket] = _Request(url[: -len(end)] + "/", headers, dict(context), signer)

    def _repeat(self, known: _Request, params: Mapping[str, Any]) -> Any:
        """The answer, or None if it is not the expected one."""
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import BotoCoreError, ConnectTimeoutError, ReadTimeoutError
        from botocore.utils import percent_encode

        # The handlers of this event check the parameters, among them TUSSIS_ALLOWED_BUCKETS.
        checked = dict(params)
        self._s3.meta.events.emit(
            "before-parameter-build.s3.GetObject", params=checked, model=self._model, context=dict(known.context)
        )
        url = known.url + percent_encode(params["Key"], safe="/~")
        if params.get("VersionId"):
            url += _VERSION + percent_encode(params["VersionId"], safe="-._~")
        headers = {**known.headers, "If-Match": params["IfMatch"]}
        request = AWSRequest(method="GET", url=url, headers=headers, stream_output=True)
        request.context = dict(known.context)
        try:
            known.signer.sign("GetObject", request)
            answer = self._http.send(request.prepare())
        except (ConnectTimeoutError, ReadTimeoutError):
            self._timed_out = True
            return None
        except BotoCoreError:
            return None
        try:
            found = self._found(answer, known, params)
        except BaseException:
            answer.raw.close()
            raise
        if found is None:
            answer.raw.close()
        return found

    def _found(self, answer: Any, known: _Request, params: Mapping[str, Any]) -> Any:
        from botocore.endpoint import convert_to_response_dict
        from botocore.httpchecksum import handle_checksum_body

        headers = answer.headers
        etag, length = headers.get("etag", ""), headers.get("content-length")
        if answer.status_code != 200 or not etag or normalise_etag(etag) != normalise_etag(params["IfMatch"]):
            return None
        if length is not None and not length.isdecimal():
            return None
        response = convert_to_response_dict(answer, self._model)
        handle_checksum_body(answer, response, known.context, self._model)
        return {
            "Body": response["body"],
            "ETag": etag,
            "ContentLength": None if length is None else int(length),
            "ContentType": headers.get("content-type", ""),
            "ContentEncoding": headers.get("content-encoding"),
            "ServerSideEncryption": headers.get("x-amz-server-side-encryption"),
            "SSECustomerAlgorithm": headers.get("x-amz-server-side-encryption-customer-algorithm"),
            "ResponseMetadata": {
                "HTTPStatusCode": 200,
                "HTTPHeaders": {name.lower(): value for name, value in headers.items()},
            },
        }
