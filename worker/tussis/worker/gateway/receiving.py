"""Receives one upload: from the chunks of a request to an object in S3 and a job in the broker."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from anyio import from_thread, to_thread
from starlette.requests import ClientDisconnect

from tussis.shared.errors import (
    BrokerRefused,
    BrokerUnavailable,
    Forgotten,
    IdempotencyKeyReused,
    QueueFull,
    RequestInvalid,
)
from tussis.shared.forgetting import Named, subject_of
from tussis.shared.job_requests import JobRequest
from tussis.shared.uploads import upload, uploaded_before
from tussis.shared.uris import ObjectAddress
from tussis.worker.gateway.enqueueing import check_request, enqueue_one
from tussis.worker.gateway.idempotency import RENEW_S, Occasion
from tussis.worker.gateway.models import JobOptions, UploadedJob
from tussis.worker.gateway.services import Services

_OPTION_FIELDS: Final = set(JobOptions.model_fields)
#: In the place of that of the object, which is not stored yet.
_ANY_ETAG: Final = "0" * 32


@dataclass(frozen=True, kw_only=True)
class Receiving:
    """What a request says about its upload."""

    name: str
    """The caller."""
    fingerprint: str
    """What is the same in a repeated request, beside the content."""
    idempotency_key: str | None
    address: Callable[[Occasion], ObjectAddress]
    options: Callable[[], JobOptions]
    """The options, when the body was read: fields may come behind the recording. They may have a batch."""
    may_exist: bool
    """Whether the key may exist: with the same content only."""


async def store_and_enqueue(services: Services, receiving: Receiving, chunks: AsyncIterator[bytes]) -> UploadedJob:
    """Store the chunks as an object, and enqueue it.

    The work is done in a thread of the uploads, which asks for one chunk after the other. Raises the errors of
    :func:`tussis.shared.uploads.upload` and of :func:`enqueue_one`, :class:`ObjectExists`, and those of the key.
    """
    idempotency = services.idempotency
    occasion = await to_thread.run_sync(
        idempotency.begin, receiving.idempotency_key, receiving.name, receiving.fingerprint
    )

    def pull() -> Iterator[bytes]:
        while True:
            chunk = from_thread.run(_next, chunks)
            if chunk is None:
                return
            if chunk:
                yield chunk

    def work() -> UploadedJob:
        with services.counts.uploads.track_inprogress():
            if occasion.answer is not None:
                return _repeated(services, occasion, pull(), receiving)
            with idempotency.releasing(occasion):
                return _store(services, receiving, occasion, pull())

    renewing = asyncio.create_task(_renew(services, occasion))
    try:
        return await to_thread.run_sync(work, limiter=services.uploading)
    except ClientDisconnect:
        raise RequestInvalid("the client closed the connection before the end of the body") from None
    finally:
        renewing.cancel()


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    return await anext(chunks, None)


async def _renew(services: Services, occasion: Occasion) -> None:
    """Keep the Idempotency-Key busy during the upload."""
    while occasion.key is not None and occasion.answer is None:
        await asyncio.sleep(RENEW_S)
        with suppress(BrokerUnavailable, BrokerRefused):
            await to_thread.run_sync(services.idempotency.renew, occasion)


def _store(services: Services, receiving: Receiving, occasion: Occasion, chunks: Iterator[bytes]) -> UploadedJob:
    settings = services.settings
    most = settings.serve_max_depth
    if most is not None and services.ledger.open_jobs() >= most:
        raise QueueFull(f"{most} jobs are open, the limit (TUSSIS_SERVE_MAX_DEPTH): try again later")
    address = receiving.address(occasion)
    _refuse(services, receiving, address)
    chunks = _checked_at_the_end(services, receiving, address, chunks)
    s3 = services.s3.client()
    stored = uploaded_before(s3, address, chunks, max_bytes=settings.max_bytes) if receiving.may_exist else None
    if stored is None:
        stored = upload(s3, address, chunks, max_bytes=settings.max_bytes, only_new=receiving.may_exist)
        services.counts.uploaded_bytes.inc(stored.size_bytes)
    options = receiving.options()
    request = _request(address, options, stored.etag, stored.version_id)
    admitted = enqueue_one(services, request, _batch(options), occasion)
    assert admitted.job_id is not None
    answer = UploadedJob(
        job_id=admitted.job_id,
        uri=address.uri,
        sent=admitted.sent,
        etag=stored.etag,
        version_id=stored.version_id,
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
    )
    services.idempotency.answered(occasion, answer.model_dump(), _content(stored.sha256, options))
    return answer


def _request(address: ObjectAddress, options: JobOptions, etag: str, version_id: str | None = None) -> JobRequest:
    chosen = options.model_dump(include=_OPTION_FIELDS)
    return JobRequest(address.uri, version_id=version_id, etag=etag, **chosen)


def _batch(options: JobOptions) -> str | None:
    return getattr(options, "batch", None)


def _refuse(services: Services, receiving: Receiving, address: ObjectAddress) -> None:
    """Raise every error of the options, and :class:`Forgotten`, before the object is stored.

    Without access to the database the worker ends the job of a forgotten recording.
    """
    options = receiving.options()
    check_request(services, _request(address, options, _ANY_ETAG), _batch(options))
    recording = Named(address.bucket, address.key, subject_of(options.metadata))
    if services.store is not None and services.need_store().forgotten([recording])[0]:
        raise Forgotten


def _checked_at_the_end(
    services: Services, receiving: Receiving, address: ObjectAddress, chunks: Iterator[bytes]
) -> Iterator[bytes]:
    """The chunks. Then raises for fields behind the recording: the object is stored only after the last chunk."""
    before = receiving.options()
    yield from chunks
    if receiving.options() != before:
        _refuse(services, receiving, address)


def _repeated(services: Services, occasion: Occasion, chunks: Iterator[bytes], receiving: Receiving) -> UploadedJob:
    """The first answer, if the content is the same. Raises :class:`IdempotencyKeyReused`."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
    if _content(digest.hexdigest(), receiving.options()) != occasion.content:
        raise IdempotencyKeyReused("another recording was sent with this Idempotency-Key: give each a key of its own")
    assert occasion.answer is not None
    return UploadedJob(**occasion.answer)


def _content(sha256: str, options: JobOptions) -> str:
    return json.dumps([sha256, options.model_dump()], sort_keys=True)
