"""Requests to S3: the entity tag and version id of a key, and the keys under a prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from tussis.shared.errors import SettingsInvalid, StorageCredentials, StorageUnavailable, TussisError
from tussis.shared.job_requests import JobRequest
from tussis.shared.s3 import head_object, list_objects
from tussis.shared.uris import ObjectAddress, parse_s3_prefix, parse_s3_uri

#: Errors that concern all keys if they occur for several of them.
_FOR_ALL = (StorageUnavailable, StorageCredentials, SettingsInvalid)


class Pins:
    """Gets entity tags and version ids from S3, for several keys at a time."""

    def __init__(self, client: Callable[[], Any], threads: int) -> None:
        self._client = client
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="tussis-head")

    def pin(self, request: JobRequest) -> JobRequest:
        """The request with the entity tag of the object, and its version id if the bucket has versions.

        Raises :class:`InvalidUri` and the errors of :func:`tussis.shared.s3.storage_errors`.
        """
        address = parse_s3_uri(request.uri)
        head = head_object(self._client(), address.bucket, address.key)
        return replace(request, etag=head.etag, version_id=head.version_id)

    def pin_many(self, requests: Sequence[JobRequest]) -> list[JobRequest | TussisError]:
        """:meth:`pin` for each request, in order. A failed request has an error in its place.

        Requests to S3 are sent in rounds of ``threads``. Raises :class:`StorageUnavailable`,
        :class:`StorageCredentials` or :class:`SettingsInvalid` if all requests of a round failed with one of these,
        because the following rounds would wait for the same error.
        """
        if not requests:
            return []
        self._client()  # raises for a wrong setting, which is not an error of a recording
        pinned: list[JobRequest | TussisError] = []
        for first in range(0, len(requests), self._threads):
            last_round = pinned[-self._threads :]
            failures = [answer for answer in last_round if isinstance(answer, _FOR_ALL)]
            if failures and len(failures) == len(last_round):
                raise failures[-1]
            pinned += self._pool.map(self._try, requests[first : first + self._threads])
        return pinned

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _try(self, request: JobRequest) -> JobRequest | TussisError:
        try:
            return self.pin(request)
        except TussisError as error:
            return error


def requests_under(prefix_uri: str, client: Callable[[], Any], like: JobRequest) -> Iterator[JobRequest]:
    """A request for every object under ``s3://bucket/prefix``, pinned by the entity tag in the listing.

    Streams the listing. ``like`` has all other fields. Raises :class:`InvalidUri` and the errors of
    :func:`tussis.shared.s3.storage_errors`.
    """
    bucket, prefix = parse_s3_prefix(prefix_uri)
    for listed in list_objects(client(), bucket, prefix):
        yield replace(like, uri=ObjectAddress(bucket, listed.key).uri, etag=listed.etag)
