"""The request of upstream, and the job that is made from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from tussis.shared.coverage import coverage_named
from tussis.shared.errors import InvalidJob
from tussis.shared.messages import Job, device_named, job_id_for, normalise_etag, random_id
from tussis.shared.queues import DEFAULT_PRIORITY
from tussis.shared.recommended_metadata import check_recommended
from tussis.shared.uris import parse_s3_uri, shown


@dataclass(frozen=True)
class JobRequest:
    """One recording to analyse.

    ``version_id`` or ``etag`` pins its content; without them, the producer gets them from S3. ``model`` is ``name`` or
    ``name@version``. With ``model`` None the worker selects the model, and with ``profile`` None the profile.
    ``priority`` is 0 (first) to 9. ``device`` is ``"any"``, ``"cpu"`` or ``"gpu"``. ``metadata`` is plain JSON and is
    stored with the recording; the values of the recommended names ``recorded_at``, ``site`` and ``subject`` are checked
    (``docs/enqueue.md``). ``again`` requests a new analysis even if one exists. ``coverage`` is ``"head"`` or
    ``"full"``; None selects the coverage of the model.
    """

    uri: str
    version_id: str | None = None
    etag: str | None = None
    model: str | None = None
    profile: str | None = None
    priority: int = DEFAULT_PRIORITY
    device: str = "any"
    metadata: Mapping[str, Any] | None = None
    again: bool = False
    coverage: str | None = None

    @property
    def pinned(self) -> bool:
        """Whether the request has a version id or an entity tag."""
        return self.version_id is not None or self.etag is not None


_FIELDS = frozenset(field.name for field in fields(JobRequest))


def request_from_line(line: str, defaults: JobRequest) -> JobRequest:
    """Parse a line of a list: a URI, or a JSON object with ``uri`` and any other field of :class:`JobRequest`.

    Fields that the line does not have are taken from ``defaults``. Raises :class:`InvalidJob`.
    """
    if not line.startswith("{"):
        return replace(defaults, uri=line)
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidJob(f"the line is not JSON ({error}): {shown(line)}") from None
    if unknown := sorted(given.keys() - _FIELDS):
        raise InvalidJob(f"unknown field {shown(unknown[0])} in {shown(line)}: use only {', '.join(sorted(_FIELDS))}")
    if not isinstance(given.get("uri"), str):
        raise InvalidJob(f"the field uri is missing or not a string in {shown(line)}")
    return replace(defaults, **given)


def job_for(request: JobRequest, enqueued_at: float) -> Job:
    """The job of a request. Its id is deterministic if the content is pinned and ``again`` is false.

    ``enqueued_at`` is in seconds since the epoch. Raises :class:`InvalidUri` and :class:`InvalidJob`.
    """
    address = parse_s3_uri(request.uri)
    coverage = None if request.coverage is None else coverage_named(request.coverage)
    etag = normalise_etag(request.etag) if isinstance(request.etag, str) else request.etag
    if request.pinned and not request.again:
        job_id = job_id_for(
            address.bucket,
            address.key,
            version_id=request.version_id,
            etag=etag,
            model=request.model,
            profile=request.profile,
            coverage=coverage,
        )
    else:
        job_id = random_id()
    job = Job(
        job_id=job_id,
        bucket=address.bucket,
        key=address.key,
        enqueued_at=enqueued_at,
        version_id=request.version_id,
        etag=etag,
        model=request.model,
        profile=request.profile,
        priority=request.priority,
        device=device_named(request.device),
        again=request.again,
        coverage=coverage,
        metadata={} if request.metadata is None else _plain(request.metadata),
    )
    check_recommended(job.metadata)
    return job


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A copy as a dict. A value that is not a mapping is returned unchanged, and the check of the job rejects it."""
    return dict(metadata) if isinstance(metadata, Mapping) else metadata
