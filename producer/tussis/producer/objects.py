"""What S3 knows about the recordings to enqueue: which bytes a key holds now, and which keys a prefix has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from tussis.producer.jobs import JobRequest
from tussis.shared.errors import SettingsInvalid, StorageCredentials, StorageUnavailable, TussisError
from tussis.shared.s3 import head_object, list_objects
from tussis.shared.uris import ObjectAddress, parse_s3_prefix, parse_s3_uri

#: Errors that all keys meet where several of them do.
_FOR_ALL = (StorageUnavailable, StorageCredentials, SettingsInvalid)


class Pins:
    """Asks S3 which bytes the keys hold, several keys at a time."""

    def __init__(self, client: Callable[[], Any], threads: int) -> None:
        self._client = client
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="tussis-head")

    def pin(self, request: JobRequest) -> JobRequest:
        """The request with the object's entity tag, and its version id in a bucket that has versions.

        Raises :class:`InvalidUri` and what :func:`tussis.shared.s3.storage_errors` does.
        """
        address = parse_s3_uri(request.uri)
        head = head_object(self._client(), address.bucket, address.key)
        return replace(request, etag=head.etag, version_id=head.version_id)

    def pin_many(self, requests: Sequence[JobRequest]) -> list[JobRequest | TussisError]:
        """:meth:`pin` for each, in order, an error in its place.

        Raises :class:`StorageUnavailable`, :class:`StorageCredentials` or :class:`SettingsInvalid` when as many
        questions as are asked at a time met only that: the rest would wait for the same, round after round.
        """
        if not requests:
            return []
        self._client()  # a wrong setting is no recording's fault
        pinned: list[JobRequest | TussisError] = []
        for first in range(0, len(requests), self._threads):
            last_round = pinned[-self._threads :]
            away = [answer for answer in last_round if isinstance(answer, _FOR_ALL)]
            if away and len(away) == len(last_round):
                raise away[-1]
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

    Streams the listing; ``like`` gives all other fields. Raises :class:`InvalidUri` and what
    :func:`tussis.shared.s3.storage_errors` does.
    """
    bucket, prefix = parse_s3_prefix(prefix_uri)
    for listed in list_objects(client(), bucket, prefix):
        yield replace(like, uri=ObjectAddress(bucket, listed.key).uri, etag=listed.etag)
