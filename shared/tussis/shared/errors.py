"""All errors of Tussis. Each is named after what happened.

The base class decides what happens to the recording. After a *transient* error the recording is tried again later. A
*permanent* error becomes a failure at once. An *operator's* error pauses the worker, and no recording fails. A
*caller's* error is raised before anything is enqueued. The docstring is the default message. ``error_class`` is the
stable name in rows, logs and metrics.

This module imports nothing of Tussis, so that every other module can import it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class TussisError(Exception):
    """An error of Tussis."""

    error_class: ClassVar[str] = "internal"
    #: Whether a new ``enqueue`` of the same object reopens the failure, because its cause may be gone (the object was
    #: uploaded).
    reopens: ClassVar[bool] = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").split("\n\n")[0].strip())


def error_classes() -> frozenset[str]:
    """The ``error_class`` of every error of this version."""
    found = {TussisError.error_class}
    kinds = list(TussisError.__subclasses__())
    while kinds:
        kind = kinds.pop()
        found.add(kind.error_class)
        kinds += kind.__subclasses__()
    return frozenset(found)


class CallerError(TussisError):
    """The call is wrong."""


class TransientError(TussisError):
    """A temporary error: the same call may succeed later."""


class PermanentError(TussisError):
    """The recording cannot be analysed as the job requests, and another attempt would fail in the same way."""


class OperatorError(TussisError):
    """The deployment is wrong: only its operator can fix it."""


# --- the caller's errors -----------------------------------------------------------------------------------------


class InvalidUri(CallerError):
    """The URI is not s3://bucket/key."""

    error_class = "invalid_uri"


class InvalidJob(CallerError):
    """A field of the job is missing, unknown, or out of range."""

    error_class = "invalid_job"


class MessageTooLarge(InvalidJob):
    """The message is larger than the limit: make the metadata smaller."""

    error_class = "message_too_large"


class BatchUnknown(CallerError):
    """The broker has no batch with this name."""

    error_class = "batch_unknown"


class JobUnknown(CallerError):
    """No job with this id is open, and none has a result."""

    error_class = "job_unknown"

    def __init__(self, message: str | None = None, job_ids: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.job_ids = tuple(job_ids)
        """The ids, if several were given."""


class NotReproducible(CallerError):
    """The analysis cannot be repeated here: the job is open, or its object or model is not available."""

    error_class = "not_reproducible"


class AnalysisUnknown(CallerError):
    """No analysis has this id or key."""

    error_class = "analysis_unknown"


class FailureUnknown(CallerError):
    """No failure matches."""

    error_class = "failure_unknown"


class ModelUnknown(CallerError):
    """No worker has served a model of this name and version."""

    error_class = "model_unknown"


class ActivationRefused(CallerError):
    """The model is not ready to be the active model."""

    error_class = "activation_refused"


class ShadowRefused(CallerError):
    """The model cannot be the shadow model now."""

    error_class = "shadow_refused"


class FileUnreadable(CallerError):
    """The local file cannot be read."""

    error_class = "file_unreadable"


class LabelsInvalid(CallerError):
    """The file of labels is not valid."""

    error_class = "labels_invalid"


class AnswersInvalid(CallerError):
    """The file of another system's answers is not valid."""

    error_class = "answers_invalid"


class ResultsInvalid(CallerError):
    """The file of results is not valid."""

    error_class = "results_invalid"


class TooFewRecordings(CallerError):
    """There are too few recordings to judge a model."""

    error_class = "too_few_recordings"


class OutputUnwritable(CallerError):
    """The output file cannot be written."""

    error_class = "output_unwritable"


class OutcomeUnreadable(CallerError):
    """The outcome of a job cannot be read by this version of Tussis."""

    error_class = "outcome_unreadable"


# --- the caller's errors over HTTP -------------------------------------------------------------------------------


class RequestInvalid(CallerError):
    """The HTTP request is not valid."""

    error_class = "request_invalid"


class RouteUnknown(CallerError):
    """The gateway has no such path, or not this method of it."""

    error_class = "route_unknown"


class TokenRefused(CallerError):
    """The request has no valid token."""

    error_class = "token_refused"


class BodyTooLarge(CallerError):
    """The body of the request has more bytes than the limit."""

    error_class = "body_too_large"


class BodySlow(CallerError):
    """The body of the request did not arrive in time."""

    error_class = "body_slow"


class SnsRefused(CallerError):
    """The message is not from an SNS topic of the settings, or its signature is wrong."""

    error_class = "sns_refused"


class IdempotencyKeyReused(CallerError):
    """Another request was sent with this Idempotency-Key."""

    error_class = "idempotency_key_reused"


class IdempotencyKeyBusy(CallerError):
    """A request with this Idempotency-Key is being processed."""

    error_class = "idempotency_key_busy"


class ObjectExists(CallerError):
    """An object with other content has this key."""

    error_class = "object_exists"


# --- transient --------------------------------------------------------------------------------------------


class BrokerUnavailable(TransientError):
    """The broker does not answer."""

    error_class = "broker_unavailable"


class BrokerNotPrepared(BrokerUnavailable):
    """The broker has no functions of Tussis, and this login may not load them."""

    error_class = "broker_not_prepared"


class BrokerRefused(TransientError):
    """The broker answers but refuses to write."""

    error_class = "broker_refused"


class WaitTimeout(TransientError):
    """Jobs are still open after the time for which the caller waits."""

    error_class = "wait_timeout"

    def __init__(self, message: str | None = None, open_ids: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.open_ids = tuple(open_ids)
        """The ids of the jobs that are still open."""


class QueueFull(TransientError):
    """As many jobs are open as the caller allows, and none of them ended while the caller waited."""

    error_class = "queue_full"


class RateExceeded(TransientError):
    """The token sends more requests than its limit."""

    error_class = "rate_exceeded"

    def __init__(self, message: str | None = None, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """Seconds until the next request is allowed."""


class GatewayBusy(TransientError):
    """The gateway has as many uploads or streams as its limit, or is stopping."""

    error_class = "gateway_busy"


class TooManyBatches(TransientError):
    """The broker keeps no more batches, and all have open jobs."""

    error_class = "too_many_batches"


class OutcomesGap(TransientError):
    """The broker no longer keeps outcomes that a group of readers has not read."""

    error_class = "outcomes_gap"

    def __init__(
        self, message: str | None = None, *, lost: int = 0, after_s: float = 0.0, before_s: float = 0.0
    ) -> None:
        super().__init__(message)
        self.lost = lost
        """The number of outcomes."""
        self.after_s = after_s
        """The time before the first of them, seconds since the epoch by the broker's clock. 0 if it is not known."""
        self.before_s = before_s
        """The time after the last of them."""


class DatabaseUnavailable(TransientError):
    """The database does not answer."""

    error_class = "database_unavailable"


class DatabaseReadOnly(DatabaseUnavailable):
    """The database accepts no writes: it is a standby, or a former primary."""

    error_class = "database_read_only"


class DatabaseFault(TransientError):
    """The database refuses a statement, possibly because of this recording."""

    error_class = "database_fault"


class StorageUnavailable(TransientError):
    """The object store does not answer, answers 5xx, or asks to slow down."""

    error_class = "storage_unavailable"


class SqsUnavailable(TransientError):
    """SQS does not answer, answers 5xx, or asks to slow down."""

    error_class = "sqs_unavailable"


class SnsUnavailable(TransientError):
    """The certificate of SNS cannot be fetched, or a subscription cannot be confirmed."""

    error_class = "sns_unavailable"


class DownloadCut(TransientError):
    """The download ended before its last byte."""

    error_class = "download_cut"


class DownloadDamaged(TransientError):
    """The downloaded bytes are not those that the object store names."""

    error_class = "download_damaged"


class DownloadSlow(TransientError):
    """The download did not finish before its deadline."""

    error_class = "download_slow"


class OutOfMemory(TransientError):
    """There was not enough memory for the recording."""

    error_class = "out_of_memory"


class DeviceReplyLost(TransientError):
    """The reply of the device process was lost, or is not valid."""

    error_class = "device_reply_lost"


class DecoderOutOfMemory(OutOfMemory):
    """The decoder process needed more memory than it had, or was killed by something else."""

    error_class = "decoder_out_of_memory"


class DecoderLost(TransientError):
    """No decoder process could be started."""

    error_class = "decoder_lost"


# --- permanent: the object --------------------------------------------------------------------------------


class ObjectMissing(PermanentError):
    """The object does not exist."""

    error_class = "object_missing"
    reopens = True


class BucketMissing(PermanentError):
    """The bucket does not exist."""

    error_class = "bucket_missing"
    reopens = True


class ObjectChanged(PermanentError):
    """The object is not the version that the job names."""

    error_class = "object_changed"
    reopens = True


class ObjectArchived(PermanentError):
    """The object is in an archive: restore it first."""

    error_class = "object_archived"
    reopens = True


class ObjectRefused(PermanentError):
    """The object store refuses the request for this object, and will refuse it again."""

    error_class = "object_refused"
    reopens = True


class BucketElsewhere(PermanentError):
    """The bucket is not at this endpoint, or not in this region."""

    error_class = "bucket_elsewhere"
    reopens = True


class BucketNotAllowed(PermanentError):
    """The object is not under a bucket or prefix of TUSSIS_ALLOWED_BUCKETS."""

    error_class = "bucket_not_allowed"
    reopens = True


class ObjectTooLarge(PermanentError):
    """The object has more bytes than the limit."""

    error_class = "too_large"


# --- permanent: the message -------------------------------------------------------------------------------


class MalformedMessage(PermanentError):
    """The message does not follow the wire format."""

    error_class = "malformed_message"


class UnknownMessageVersion(PermanentError):
    """The version of the message is unknown to this worker."""

    error_class = "unknown_message_version"


class JobIdMismatch(PermanentError):
    """The job id is a UUID of version 5, and not the one of the content that the message names."""

    error_class = "job_id_mismatch"


class JobIdTaken(PermanentError):
    """The job id belongs to another object."""

    error_class = "job_id_taken"


class ModelNotServed(PermanentError):
    """The message names a model that no live worker has served for TUSSIS_MODEL_WAIT_S."""

    error_class = "model_not_served"


class UnknownProfile(PermanentError):
    """There is no preprocessing profile of this name."""

    error_class = "unknown_profile"


class Expired(PermanentError):
    """Transient errors continued for longer than TUSSIS_RETRY_TOTAL_S."""

    error_class = "expired"


class InternalFault(PermanentError):
    """A bug in Tussis. The log of the worker has its trace."""

    error_class = "internal"


class NeedsMemory(PermanentError):
    """The recording needs more memory than a process of the worker has."""

    error_class = "needs_memory"


class WorkerCrashed(PermanentError):
    """Every attempt that is allowed crashed (no outcome was reported)."""

    error_class = "worker_crashed"


class Forgotten(PermanentError):
    """The recording was forgotten: it is not analysed or stored again, unless `tussis forget --lift` allows it."""

    error_class = "forgotten"


class JobMoved(PermanentError):
    """The job continued as another analysis: the object, the model or the profile had changed."""

    error_class = "job_moved"
    reopens = True


# --- permanent: the notification of an object store --------------------------------------------------------


class S3EventUnreadable(PermanentError):
    """The body is not a notification of an object store."""

    error_class = "s3_event_unreadable"


# --- permanent: the audio ---------------------------------------------------------------------------------


class AudioError(PermanentError):
    """The bytes are not audio that can be analysed."""

    error_class = "undecodable"


class EmptyObject(AudioError):
    """The object has no bytes."""

    error_class = "empty"


class NotAudio(AudioError):
    """The bytes are not in a supported audio container."""

    error_class = "not_audio"


class NoAudioStream(AudioError):
    """The container has no audio stream."""

    error_class = "no_audio_stream"


class CorruptAudio(AudioError):
    """The container or its audio stream is too damaged to decode."""

    error_class = "corrupt"


class NoSamples(AudioError):
    """The audio stream has no samples."""

    error_class = "no_samples"


class NonFiniteSamples(AudioError):
    """The samples contain NaN or infinity."""

    error_class = "non_finite"


class UnsupportedRate(AudioError):
    """The sample rate is outside the limits."""

    error_class = "unsupported_rate"


class TooManyChannels(AudioError):
    """The audio has more channels than the limit."""

    error_class = "too_many_channels"


class TooLong(AudioError):
    """The audio is longer than the limit."""

    error_class = "too_long"


class CodecUnsupportedByProfile(AudioError):
    """The decoder of the profile does not read this codec."""

    error_class = "codec_unsupported"


# --- permanent: the decoder process -----------------------------------------------------------------------


class DecoderCrashed(PermanentError):
    """Every decoder process that tried the recording crashed, hung, or sent replies that are not valid."""

    error_class = "decoder_crashed"


class ProfileNotJailed(PermanentError):
    """The profile is decoded outside the jail, and TUSSIS_DECODER_JAIL=require forbids that."""

    error_class = "profile_not_jailed"


# --- permanent: the model's answer ------------------------------------------------------------------------


class InferenceFailed(PermanentError):
    """The model gives no valid answer for this recording."""

    error_class = "inference_failed"


# --- the operator's errors ---------------------------------------------------------------------------------------


class SettingsInvalid(OperatorError):
    """A setting is missing or wrong."""

    error_class = "settings_invalid"


class SchemaMismatch(OperatorError):
    """The schema of the database belongs to another version of Tussis."""

    error_class = "schema_mismatch"


class JailMissing(OperatorError):
    """TUSSIS_DECODER_JAIL=require, and this machine or this model cannot decode in the whole jail."""

    error_class = "jail_missing"


class ModelRefused(OperatorError):
    """The model file, or the manifest beside it, is missing or wrong."""

    error_class = "model_refused"


class ModelConflict(OperatorError):
    """Another file is registered as a model of this name and version."""

    error_class = "model_conflict"


class StorageAccessDenied(OperatorError):
    """The object store refuses access."""

    error_class = "access_denied"


class StorageCredentials(OperatorError):
    """The object store's credentials are missing, wrong or expired."""

    error_class = "credentials"


class SqsRefused(OperatorError):
    """SQS refuses the request (no right, no such SQS queue), or its certificate cannot be verified."""

    error_class = "sqs_refused"


class DatabaseRefused(OperatorError):
    """The database refuses the login, or does not exist."""

    error_class = "database_refused"


class DeviceUnavailable(OperatorError):
    """The device of the worker is not available."""

    error_class = "device_unavailable"


class WebhookEndpointGone(OperatorError):
    """The receiver of webhooks answered 410 (Gone): it wants no more."""

    error_class = "webhook_endpoint_gone"


class DiskFull(OperatorError):
    """The disk is full."""

    error_class = "disk_full"


class ServerFailed(OperatorError):
    """An embedded server did not start."""

    error_class = "server_failed"


class NotInstalled(OperatorError):
    """This command needs an extra that is not installed."""

    error_class = "not_installed"
