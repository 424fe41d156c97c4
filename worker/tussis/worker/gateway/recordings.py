"""``/v1/recordings``: upload a recording to S3 while it arrives, and enqueue it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import ValidationError

from tussis.shared.errors import RequestInvalid, SettingsInvalid
from tussis.shared.uploads import new_key, parse_upload_prefix
from tussis.shared.uris import ObjectAddress, check_key
from tussis.worker.gateway.auth import Caller
from tussis.worker.gateway.bodies import allow_upload
from tussis.worker.gateway.errors import documented
from tussis.worker.gateway.idempotency import IdempotencyHeader
from tussis.worker.gateway.models import JobOptions, UploadedJob
from tussis.worker.gateway.multipart import MultipartUpload
from tussis.worker.gateway.receiving import Receiving, store_and_enqueue
from tussis.worker.gateway.services import Services

#: The field of the recording in a multipart body.
FILE_FIELD: Final = "audio"
_OPTIONS: Final = ("model", "profile", "coverage", "priority", "device", "metadata", "again", "batch")
_STRING: Final = {"type": "string"}
_FORM: Final = {
    "type": "object",
    "required": [FILE_FIELD],
    "properties": {FILE_FIELD: {"type": "string", "format": "binary"}} | dict.fromkeys(_OPTIONS, _STRING),
}
_RAW: Final = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_BODY: Final[dict[str, Any]] = {
    "requestBody": {"required": True, "content": _RAW | {"multipart/form-data": {"schema": _FORM}}}
}
_RAW_BODY: Final[dict[str, Any]] = {"requestBody": {"required": True, "content": _RAW}}

FileName = Annotated[str | None, Query(max_length=255, description="the extension of the key is taken from it")]


class UploadOptions(JobOptions):
    """How an upload is analysed, and the batch of its job."""

    batch: str | None = None


async def options_of_query(
    model: str | None = None,
    profile: str | None = None,
    coverage: str | None = None,
    priority: str | None = None,
    device: str | None = None,
    metadata: Annotated[str | None, Query(description="a JSON object", max_length=65_536)] = None,
    again: str | None = None,
    batch: str | None = None,
) -> dict[str, str]:
    """Dependency: the options in the query, as the texts that were given."""
    given = locals()
    return {name: given[name] for name in _OPTIONS if given[name] is not None}


Options = Annotated[dict[str, str], Depends(options_of_query)]


def recordings_router(services: Services) -> APIRouter:
    """The routes that receive recordings."""
    router = APIRouter(prefix="/v1/recordings", tags=["recordings"], dependencies=[Depends(allow_upload)])
    failures = documented(404, 408, 409, 413)

    @router.post("", status_code=202, responses=failures, openapi_extra=_BODY)
    async def upload(
        request: Request,
        name: Caller,
        options: Options,
        file_name: FileName = None,
        idempotency_key: IdempotencyHeader = None,
    ) -> UploadedJob:
        """Store a recording under a new key and enqueue it. When this is answered, the broker holds the job.

        The body is the recording, or multipart/form-data with the field `audio`. The options are in the query, or in
        fields of the form. Send an Idempotency-Key to be able to repeat the request.
        """
        prefix = upload_prefix(services)
        form = None
        chunks: AsyncIterator[bytes] = request.stream()
        content_type = request.headers.get("content-type", "")
        if content_type.lower().startswith("multipart/form-data"):
            form = MultipartUpload(content_type, chunks, FILE_FIELD)
            if not await form.begin():
                raise RequestInvalid(f"the form has no file in the field {FILE_FIELD}")
            file_name, chunks = form.file_name or file_name, form.chunks()

        def given() -> UploadOptions:
            return parse_options(options if form is None else options | form.fields)

        given()  # what is wrong already is refused before the recording is read
        receiving = Receiving(
            name=name,
            fingerprint=json.dumps(["recordings", sorted(options.items())]),
            idempotency_key=idempotency_key,
            address=lambda occasion: ObjectAddress(
                prefix.bucket, new_key(prefix.key, file_name, occasion.at, occasion.new_id())
            ),
            options=given,
            may_exist=False,
        )
        return await store_and_enqueue(services, receiving, chunks)

    @router.put("/{key:path}", status_code=202, responses=failures, openapi_extra=_RAW_BODY)
    async def upload_as(
        request: Request,
        key: Annotated[str, Path(description="the key behind TUSSIS_UPLOAD_PREFIX", max_length=1024)],
        name: Caller,
        options: Options,
        idempotency_key: IdempotencyHeader = None,
    ) -> UploadedJob:
        """Store a recording under a key, and enqueue it. The body is the recording, the options are in the query.

        It may be repeated with the same content. If the key has other content, the answer is 409.
        """
        prefix = upload_prefix(services)
        address = ObjectAddress(prefix.bucket, prefix.key + key)
        check_key(address.key)
        parsed = parse_options(options)
        receiving = Receiving(
            name=name,
            fingerprint=json.dumps(["recordings", key, sorted(options.items())]),
            idempotency_key=idempotency_key,
            address=lambda occasion: address,
            options=lambda: parsed,
            may_exist=True,
        )
        return await store_and_enqueue(services, receiving, request.stream())

    return router


def upload_prefix(services: Services) -> ObjectAddress:
    """Where uploads are stored: a bucket, and the start of the keys. Raises :class:`SettingsInvalid`."""
    given = services.settings.upload_prefix
    if not given:
        raise SettingsInvalid("the gateway accepts no uploads: set TUSSIS_UPLOAD_PREFIX, such as s3://bucket/uploads/")
    return parse_upload_prefix(given)


def parse_options(texts: dict[str, str]) -> UploadOptions:
    """The options from their texts. Raises :class:`RequestInvalid`."""
    unknown = sorted(texts.keys() - set(_OPTIONS))
    if unknown:
        raise RequestInvalid(f"unknown field {unknown[0]!r}: use {FILE_FIELD}, {', '.join(_OPTIONS)}")
    values: dict[str, Any] = dict(texts)
    if "metadata" in values:
        try:
            values["metadata"] = json.loads(values["metadata"])
        except (ValueError, RecursionError) as error:
            raise RequestInvalid(f"metadata is not JSON: {error}") from None
    try:
        return UploadOptions(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise RequestInvalid(f"{'.'.join(map(str, first['loc']))} is wrong: {first['msg']}") from None
