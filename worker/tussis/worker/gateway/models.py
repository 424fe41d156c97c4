"""The bodies of requests and answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tussis.shared.job_requests import JobRequest
from tussis.shared.queues import DEFAULT_PRIORITY
from tussis.worker.gateway.errors import ErrorFields

#: Largest number of jobs that one request enqueues.
MAX_JOBS = 1000

Priority = Annotated[int, Field(ge=0, le=9, description="0 is taken first, 9 last")]
Batch = Annotated[str | None, Field(description="name of the batch that the job joins", max_length=100)]


class JobOptions(BaseModel):
    """How a recording is analysed. docs/enqueue.md describes the fields."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="name or name@version")
    profile: str | None = None
    coverage: Literal["head", "full"] | None = None
    priority: Priority = DEFAULT_PRIORITY
    device: Literal["any", "cpu", "gpu"] = "any"
    metadata: dict[str, Any] | None = Field(None, description="stored with the recording")
    again: bool = Field(False, description="analyse the recording again, even if there is a result")


class JobBody(JobOptions):
    """A recording in S3 to analyse."""

    uri: str = Field(description="s3://bucket/key", max_length=2000)
    version_id: str | None = None
    etag: str | None = None

    def request(self) -> JobRequest:
        """The request that it describes."""
        return JobRequest(**self.model_dump(include=_FIELDS))


_FIELDS = set(JobBody.model_fields)


class OneJob(JobBody):
    """A recording in S3 to analyse, and the batch of its job."""

    batch: Batch = None


class ManyJobs(BaseModel):
    """Recordings in S3 to analyse."""

    model_config = ConfigDict(extra="forbid")

    jobs: list[JobBody] = Field(min_length=1, max_length=MAX_JOBS)
    batch: Batch = None
    close_batch: bool = Field(False, description="close the batch, because no further job joins it")


class EnqueuedJob(BaseModel):
    """A job that the broker holds."""

    job_id: str
    uri: str
    sent: bool = Field(description="false: the job was open already, and nothing was sent")


class RefusedJob(BaseModel):
    """A recording that was not enqueued."""

    uri: str
    error: ErrorFields


class EnqueuedJobs(BaseModel):
    """What became of each recording, in the order of the request."""

    jobs: list[EnqueuedJob | RefusedJob]
    enqueued: int
    refused: int


class UploadedJob(EnqueuedJob):
    """An upload that is stored and enqueued."""

    etag: str
    version_id: str | None
    size_bytes: int
    sha256: str
