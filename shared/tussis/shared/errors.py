"""Every error that Tussis raises on purpose, named after the fact it states.

The base class decides what happens to the recording: a *transient* error is tried again later, a *permanent*
one becomes a failure row at once, an *operator's* error pauses the worker and touches no recording. An error
of the *caller* never reaches a queue. The docstring is the default message; ``error_class`` is the stable name
that lands in the result row, the logs and the metrics.

Imports nothing: every part of Tussis may raise these.
"""

from __future__ import annotations

from typing import ClassVar


class TussisError(Exception):
    """Something went wrong in Tussis."""

    error_class: ClassVar[str] = "internal"
    #: Whether a new ``enqueue`` of the same object may find the cause gone (a missing object was uploaded).
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
    """The call cannot be carried out as it was written."""


class TransientError(TussisError):
    """A fault that passes: the same call may succeed later."""


class PermanentError(TussisError):
    """This recording cannot be analysed as the message asks, however often it is tried."""


class OperatorError(TussisError):
    """The deployment is wrong: only its operator can mend it."""


# --- the caller's -----------------------------------------------------------------------------------------


class InvalidUri(CallerError):
    """Not an s3://bucket/key URI."""

    error_class = "invalid_uri"


class InvalidJob(CallerError):
    """A field of the job is missing, unknown, or out of range."""

    error_class = "invalid_job"


class MessageTooLarge(InvalidJob):
    """The message is over the size limit: keep the metadata small."""

    error_class = "message_too_large"


class JobUnknown(CallerError):
    """No job of this id is open, and none has a result."""

    error_class = "job_unknown"


class FailureUnknown(CallerError):
    """No failure matches."""

    error_class = "failure_unknown"


class FileUnreadable(CallerError):
    """The local file cannot be read."""

    error_class = "file_unreadable"


class TooFewRecordings(CallerError):
    """There are fewer recordings than it takes to say anything about a model."""

    error_class = "too_few_recordings"


class OutputUnwritable(CallerError):
    """The output file cannot be written."""

    error_class = "output_unwritable"


# --- transient --------------------------------------------------------------------------------------------


class BrokerUnavailable(TransientError):
    """The broker does not answer."""

    error_class = "broker_unavailable"


class BrokerRefused(TransientError):
    """The broker answers but refuses to write."""

    error_class = "broker_refused"


class DatabaseUnavailable(TransientError):
    """The database does not answer."""

    error_class = "database_unavailable"


class DatabaseReadOnly(DatabaseUnavailable):
    """The database only reads: a standby, or a primary that was replaced."""

    error_class = "database_read_only"


class DatabaseFault(TransientError):
    """The database refuses a statement, for a reason that may lie in this recording."""

    error_class = "database_fault"


class StorageUnavailable(TransientError):
    """The object store does not answer, answers 5xx, or asks to slow down."""

    error_class = "storage_unavailable"


class DownloadCut(TransientError):
    """The download ended before its last byte."""

    error_class = "download_cut"


class DownloadDamaged(TransientError):
    """The bytes that arrived are not those that the object store holds."""

    error_class = "download_damaged"


class DownloadSlow(TransientError):
    """The download did not finish before its deadline."""

    error_class = "download_slow"


class OutOfMemory(TransientError):
    """There was not enough memory for the recording."""

    error_class = "out_of_memory"


class DeviceReplyLost(TransientError):
    """The device process's reply was lost, or cannot be trusted."""

    error_class = "device_reply_lost"


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
    """The object is no longer the version that the message names."""

    error_class = "object_changed"
    reopens = True


class ObjectArchived(PermanentError):
    """The object is in an archive, from which it has to be restored first."""

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


class ObjectTooLarge(PermanentError):
    """The object has more bytes than the limit."""

    error_class = "too_large"


# --- permanent: the message -------------------------------------------------------------------------------


class MalformedMessage(PermanentError):
    """The message does not follow the wire format."""

    error_class = "malformed_message"


class UnknownMessageVersion(PermanentError):
    """The message is of a version that this worker does not know."""

    error_class = "unknown_message_version"


class ModelNotServed(PermanentError):
    """The message names a model that this worker does not serve."""

    error_class = "model_not_served"


class UnknownProfile(PermanentError):
    """No such preprocessing profile."""

    error_class = "unknown_profile"


class Expired(PermanentError):
    """Transient faults went on for longer than the limit on a job's age."""

    error_class = "expired"


class InternalFault(PermanentError):
    """A fault of Tussis itself; the worker's log has its trace."""

    error_class = "internal"


class NeedsMemory(PermanentError):
    """The recording needs more memory than a worker's process can have."""

    error_class = "needs_memory"


class WorkerCrashed(PermanentError):
    """The worker's process ended without a word on every attempt allowed."""

    error_class = "worker_crashed"


class JobMoved(PermanentError):
    """The job went on as another analysis: the object, the model or the profile had changed since."""

    error_class = "job_moved"
    reopens = True


# --- permanent: the audio ---------------------------------------------------------------------------------


class AudioError(PermanentError):
    """The bytes are not audio that can be analysed."""

    error_class = "undecodable"


class EmptyObject(AudioError):
    """The object has no bytes."""

    error_class = "empty"


class NotAudio(AudioError):
    """The bytes are of no audio container that is accepted."""

    error_class = "not_audio"


class NoAudioStream(AudioError):
    """The container holds no audio stream."""

    error_class = "no_audio_stream"


class CorruptAudio(AudioError):
    """The container or its audio stream is damaged beyond decoding."""

    error_class = "corrupt"


class NoSamples(AudioError):
    """The audio stream decodes to no samples."""

    error_class = "no_samples"


class NonFiniteSamples(AudioError):
    """The samples hold NaN or infinity."""

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
    """The profile's own decoder does not read this codec."""

    error_class = "codec_unsupported"


# --- permanent: the model's answer ------------------------------------------------------------------------


class InferenceFailed(PermanentError):
    """The model gives no usable answer for this recording."""

    error_class = "inference_failed"


# --- the operator's ---------------------------------------------------------------------------------------


class SettingsInvalid(OperatorError):
    """A setting is missing or wrong."""

    error_class = "settings_invalid"


class SchemaMismatch(OperatorError):
    """The database is on another schema revision than this version of Tussis."""

    error_class = "schema_mismatch"


class ModelRefused(OperatorError):
    """The model file, or the manifest beside it, is missing or wrong."""

    error_class = "model_refused"


class ModelConflict(OperatorError):
    """A model of this name and version is registered with another file."""

    error_class = "model_conflict"


class StorageAccessDenied(OperatorError):
    """The object store refuses access."""

    error_class = "access_denied"


class StorageCredentials(OperatorError):
    """The object store's credentials are missing, wrong or expired."""

    error_class = "credentials"


class DatabaseRefused(OperatorError):
    """The database refuses the login, or does not exist."""

    error_class = "database_refused"


class DeviceUnavailable(OperatorError):
    """The device that the worker is to compute on is not there."""

    error_class = "device_unavailable"


class DiskFull(OperatorError):
    """The disk is full."""

    error_class = "disk_full"


class ServerFailed(OperatorError):
    """An embedded server did not start."""

    error_class = "server_failed"


class NotInstalled(OperatorError):
    """This command needs an extra that is not installed."""

    error_class = "not_installed"
