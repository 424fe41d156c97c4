"""The wire format: one job as JSON, and the Celery envelope around it. ``docs/wire-format.md`` is its specification.

A message whose ``v`` is not :data:`MESSAGE_VERSION` is refused as ``unknown_message_version``. A message with a field
that version 1 does not define is refused as ``malformed_message``, because silently ignoring an option would give a
wrong result. Data of upstream belongs in ``metadata``, which is stored unchanged.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from tussis.shared.coverage import Coverage, coverage_named
from tussis.shared.errors import (
    InvalidJob,
    InvalidUri,
    MalformedMessage,
    MessageTooLarge,
    UnknownMessageVersion,
)
from tussis.shared.queues import DEFAULT_PRIORITY, MODEL, PRIORITIES, TASK_NAME, Device, queue_name
from tussis.shared.uris import check_bucket, check_key, shown

MESSAGE_VERSION = 1
#: Maximum size of the message's JSON, bytes of UTF-8. The ledger holds every open message in the broker's memory.
MAX_MESSAGE_BYTES = 64 * 1024
#: Maximum nesting depth of lists and objects in the metadata. Python's decoder stops at the recursion limit, whose
#: remaining depth differs between processes. One process would accept metadata that another cannot read.
MAX_NESTING = 100
#: Namespace of deterministic job ids (RFC 9562, version 5). It is part of the wire format and never changes.
JOB_NAMESPACE = uuid.UUID("6f9d1c1e-52ab-5b3f-8c55-1f6a0f0f7a01")

_JOB_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
#: The second argument of the task. Only workers send it; see :func:`envelope`.
HANDED_BACK = "handed_back"

_PROFILE = re.compile(r"[a-z0-9_]{1,64}")
# It is part of a key of the broker, and needs no escaping in JSON.
_BATCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}")
_BATCH_FORM = "1 to 100 letters, digits, dots, dashes, underscores, colons and slashes, the first a letter or digit"
# S3's own version ids and entity tags are printable ASCII of at most 1024 bytes.
_VERSION_ID = re.compile(r"[!-~]{1,1024}")
_ETAG = re.compile(r"[!#-~]{1,1024}")
# The form in S3's headers. A job id may have been computed from this form.
_QUOTED_ETAG = re.compile(r'(?:W/)?"([!#-~]{1,1024})"')
# An escaped NUL character in JSON. An even number of backslashes before it belongs to other characters.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_DEVICES = f"one of {', '.join(Device)}"
_COVERAGES = f"one of {', '.join(Coverage)}"
#: Seconds since the epoch at the end of the year 9999, the last year of Python's datetime.
_END_OF_TIME = 253_402_300_800
_TOO_DEEP = f"metadata must have at most {MAX_NESTING} levels of nested lists and objects"
_JSON = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def normalise_etag(etag: str) -> str:
    """The entity tag without weak marker and quotes. S3 quotes it in headers but not in events."""
    return etag.removeprefix("W/").strip('"')


@dataclass(frozen=True, kw_only=True)
class Job:
    """One request to analyse one object.

    ``enqueued_at`` is in seconds since the epoch. ``version_id`` and ``etag`` (without quotes) select the content. If
    both are None, the worker takes the current content. ``model`` is ``name`` or ``name@version``; None selects the
    model of the worker. ``coverage`` None selects the coverage of the model. ``again`` adds a new analysis to the
    existing ones. ``reopen`` runs an analysis again that failed before ``enqueued_at`` (``tussis failures retry`` sets
    it). Without ``reopen`` such a failure stays. ``shadow`` marks a job of the shadow model, which only workers open:
    see :func:`shadow_job`.
    """

    job_id: str
    bucket: str
    key: str
    enqueued_at: float
    version_id: str | None = None
    etag: str | None = None
    model: str | None = None
    profile: str | None = None
    priority: int = DEFAULT_PRIORITY
    device: Device = Device.ANY
    again: bool = False
    reopen: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    coverage: Coverage | None = None
    shadow: bool = False

    def __post_init__(self) -> None:
        _check(self)

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def queue(self) -> str:
        return queue_name(self.device)

    def to_json(self) -> str:
        """The message as compact JSON with all fields. Raises :class:`MessageTooLarge`.

        Without a coverage there is no such field, and without a shadow job no field ``shadow``: workers of the first
        version know neither.
        """
        fields = {"v": MESSAGE_VERSION, **vars(self)}
        if self.coverage is None:
            del fields["coverage"]
        if not self.shadow:
            del fields["shadow"]
        text = _JSON.encode(fields)
        size = len(text.encode("utf-8"))
        if size > MAX_MESSAGE_BYTES:
            raise MessageTooLarge(
                f"the message for {self.uri} has {size} bytes, the limit is {MAX_MESSAGE_BYTES}: shorten the metadata"
            )
        return text


def job_id_for(
    bucket: str,
    key: str,
    *,
    version_id: str | None,
    etag: str | None,
    model: str | None,
    profile: str | None,
    coverage: str | None = None,
) -> str:
    """The deterministic id of a job: UUID version 5 of the canonical string in :data:`JOB_NAMESPACE`.

    The canonical string is ``tussis1`` and the arguments as netstrings (``<bytes of UTF-8>:<text>,``), so that
    different arguments never give the same string. None is the empty netstring; a coverage of None is left out, so that
    a job without one keeps the id that it had before messages had a coverage. Raises :class:`InvalidJob` for an
    argument that is not text.
    """
    parts = [bucket, key, version_id or "", etag or "", model or "", profile or ""]
    if coverage:
        parts.append(coverage)
    try:
        canonical = "tussis1" + "".join([f"{len(part.encode('utf-8'))}:{part}," for part in parts])
    except (AttributeError, UnicodeEncodeError):
        raise InvalidJob("version_id, etag, model, profile and coverage must be text") from None
    return _uuid(hashlib.sha1(JOB_NAMESPACE.bytes + canonical.encode(), usedforsecurity=False).digest(), 5)


def shadow_job(job: Job, model: str, *, etag: str, version_id: str | None) -> Job:
    """The job that has the shadow model (``name@version``) analyse the same content as a job that names no model.

    It is the same for every delivery of ``job``: opening it again changes nothing. It has the lowest priority and no
    metadata. Empty metadata does not replace that of the recording.
    """
    return Job(
        job_id=shadow_id(job.bucket, job.key, version_id, etag, model),
        bucket=job.bucket,
        key=job.key,
        enqueued_at=job.enqueued_at,
        version_id=version_id,
        etag=etag,
        model=model,
        priority=max(PRIORITIES),
        shadow=True,
    )


def shadow_id(bucket: str, key: str, version_id: str | None, etag: str | None, model: str | None) -> str:
    """The id of a shadow job. ``shadow`` is not the name of a coverage, so no other job has this id."""
    return job_id_for(bucket, key, version_id=version_id, etag=etag, model=model, profile=None, coverage="shadow")


def is_own_id(job: Job) -> bool:
    """Whether the id of the job is that of the content that it names, or not derived from a content.

    Ids of version 5 are derived. Ids that were computed from the quoted form of the entity tag are accepted too.
    """
    if job.job_id[14] != "5" or job.shadow:
        return True
    tag = None if job.etag is None else normalise_etag(job.etag)
    forms = dict.fromkeys([job.etag] if tag is None else [job.etag, tag, f'"{tag}"', f'W/"{tag}"'])
    named = {name: getattr(job, name) for name in ("version_id", "model", "profile", "coverage")}
    return any(job.job_id == job_id_for(job.bucket, job.key, etag=form, **named) for form in forms)


def random_id() -> str:
    """A random UUID, version 4, as text."""
    return _uuid(os.urandom(16), 4)


def _uuid(data: bytes, version: int) -> str:
    """The first 16 bytes as a UUID of that version (RFC 9562). The uuid module takes three times as long."""
    number = int.from_bytes(data[:16], "big") & ~0xF000_C000_0000_0000_0000 | version << 76 | 1 << 63
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def parse_message(raw: object) -> Job:
    """Read a job from the decoded JSON of a message.

    Raises :class:`UnknownMessageVersion`, or :class:`MalformedMessage` with the name of the field.
    """
    if not isinstance(raw, dict):
        raise MalformedMessage(f"the message is {type(raw).__name__}, not an object")
    version = raw.get("v")
    if version != MESSAGE_VERSION or isinstance(version, bool):
        raise UnknownMessageVersion(
            f"the message has version {shown(version)}, this worker reads version {MESSAGE_VERSION}"
        )
    fields = {name: value for name, value in raw.items() if name != "v"}
    unknown = sorted(fields.keys() - Job.__dataclass_fields__.keys())
    if unknown:
        raise MalformedMessage(f"unknown field {shown(unknown[0])}: put other data into metadata")
    missing = [name for name in ("job_id", "bucket", "key", "enqueued_at") if name not in fields]
    if missing:
        raise MalformedMessage(f"field {missing[0]!r} is missing")
    try:
        etag = fields.get("etag")
        if isinstance(etag, str) and (quoted := _QUOTED_ETAG.fullmatch(etag)):
            fields["etag"] = quoted[1]
        if "device" in fields:
            fields["device"] = device_named(fields["device"])
        if fields.get("coverage") is not None:
            fields["coverage"] = coverage_named(fields["coverage"])
        priority = fields.get("priority")
        if isinstance(priority, float) and priority.is_integer():  # 5.0 and 5 are the same number in JSON
            fields["priority"] = int(priority)
        job = Job(**fields)
        job.to_json()
    except (InvalidJob, InvalidUri) as error:
        raise MalformedMessage(str(error)) from None
    return job


def parse_message_text(text: str | bytes) -> Job:
    """:func:`parse_message` for JSON text, as stored in the ledger."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(f"the message is not JSON: {error}") from None
    return parse_message(raw)


# A template. Encoding every envelope as JSON took a third of the time of a bulk enqueue. No value needs escaping.
_ENVELOPE = _JSON.encode(
    {
        "body": "%(body)s",
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": TASK_NAME,
            "id": "%(job_id)s",
            "shadow": None,
            "eta": None,
            "expires": None,
            "group": None,
            "group_index": None,
            "retries": 0,
            "timelimit": [None, None],
            "root_id": "%(job_id)s",
            "parent_id": None,
            "argsrepr": "()",
            "kwargsrepr": "{}",
            "origin": "tussis",
            "ignore_result": True,
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
        },
        "properties": {
            "correlation_id": "%(job_id)s",
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "%(queue)s"},
            "priority": "%(priority)d",
            "body_encoding": "base64",
            "delivery_tag": "%(delivery_tag)s",
        },
    }
).replace('"%(priority)d"', "%(priority)d")


def envelope(job: Job, message: str | None = None, *, handed_back: str | None = None, queue: str | None = None) -> str:
    """The Celery message (protocol 2) around a job, in the form that the Redis transport stores in a list.

    ``message`` is the job's JSON, if the caller has it already. ``handed_back`` is the token of the attempt that handed
    the message back, and ``queue`` is the model queue to which it is sent; only workers use the two. Every call creates
    a new ``delivery_tag``: two entries with the same tag would be acknowledged together.
    """
    message = job.to_json() if message is None else message
    second = "" if handed_back is None else f',"{HANDED_BACK}":{json.dumps(handed_back)}'
    return entry_of(f'{{"message":{message}{second}}}', job.job_id, queue or job.queue, job.priority)


def envelope_around(message: object) -> str:
    """The Celery message around JSON that is not a job of this version. A worker stores it as a dead letter."""
    return entry_of(f'{{"message":{json.dumps(message)}}}', random_id(), queue_name(Device.ANY), DEFAULT_PRIORITY)


def entry_of(arguments: str, task_id: str, queue: str, priority: int) -> str:
    """The envelope around the task's keyword ``arguments``, a JSON object as text. Its other fields are fixed.

    ``task_id`` and ``queue`` must be text that needs no escaping in JSON.
    """
    body = f'[[],{arguments},{{"callbacks":null,"errbacks":null,"chain":null,"chord":null}}]'
    return _ENVELOPE % {
        "body": base64.b64encode(body.encode("utf-8")).decode("ascii"),
        "job_id": task_id,
        "queue": queue,
        "priority": priority,
        "delivery_tag": random_id(),
    }


def is_shadow(message: object) -> bool:
    """Whether the decoded JSON of a message, also of one that cannot be read, says that its job is a shadow job."""
    return isinstance(message, dict) and message.get("shadow") is True


def is_job_id(value: object) -> TypeGuard[str]:
    """Whether a value is a job id: a UUID in lower case with dashes."""
    return isinstance(value, str) and _JOB_ID.fullmatch(value) is not None


def is_model_name(value: object) -> TypeGuard[str]:
    """Whether a value is ``name`` or ``name@version`` of a model."""
    return isinstance(value, str) and MODEL.fullmatch(value) is not None


def is_nested_deeper(decoded: object, limit: int) -> bool:
    """Whether lists and objects in decoded JSON are nested deeper than ``limit``. The function is not recursive."""
    level = [decoded]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return any(isinstance(value, dict | list) for value in level)


def device_named(value: object) -> Device:
    """The device with this name. Raises :class:`InvalidJob`."""
    try:
        return Device(str(value))
    except ValueError:
        raise InvalidJob(f"device must be one of {', '.join(Device)}, not {shown(value)}") from None


def check_batch(name: object) -> None:
    """Raise :class:`InvalidJob` unless it is the name of a batch, or None."""
    _require_match(_BATCH, name, "batch", _BATCH_FORM)


def _check(job: Job) -> None:
    for name in ("job_id", "bucket", "key"):
        _require(isinstance(getattr(job, name), str), name, "a string", getattr(job, name))
    check_bucket(job.bucket)
    check_key(job.key)
    _require_match(_JOB_ID, job.job_id, "job_id", "a UUID in lower case with dashes")
    _require_match(_VERSION_ID, job.version_id, "version_id", "1 to 1024 printable ASCII characters")
    _require_match(_ETAG, job.etag, "etag", "1 to 1024 printable ASCII characters without quotes")
    _require_match(MODEL, job.model, "model", "name or name@version")
    _require_match(_PROFILE, job.profile, "profile", "the name of a profile")
    _require(type(job.priority) is int and job.priority in PRIORITIES, "priority", "0 (first) to 9", job.priority)
    _require(isinstance(job.device, Device), "device", _DEVICES, job.device)
    _require(job.coverage is None or isinstance(job.coverage, Coverage), "coverage", _COVERAGES, job.coverage)
    _require(type(job.again) is bool, "again", "true or false", job.again)
    _require(type(job.reopen) is bool, "reopen", "true or false", job.reopen)
    _require(type(job.shadow) is bool, "shadow", "true or false", job.shadow)
    _require(
        type(job.enqueued_at) in (int, float) and 0 <= job.enqueued_at < _END_OF_TIME,
        "enqueued_at",
        "seconds since the epoch",
        job.enqueued_at,
    )
    _require(isinstance(job.metadata, dict), "metadata", "an object", type(job.metadata))
    if job.shadow:
        _check_shadow(job)
    if job.metadata:
        _check_metadata(job.metadata)


def _check_shadow(job: Job) -> None:
    """The results of a shadow job are hidden. No producer must get one by mistake, so its id is prescribed."""
    if job.again or job.reopen or job.profile is not None or job.coverage is not None or job.model is None:
        raise InvalidJob("a job with shadow names a model, and has neither again, reopen, profile nor coverage")
    if job.job_id != shadow_id(job.bucket, job.key, job.version_id, job.etag, job.model):
        raise InvalidJob("shadow is set by workers only: leave it out")


def _check_metadata(metadata: Mapping[str, Any]) -> None:
    try:
        text = _JSON.encode(metadata)
        text.encode("utf-8")
        decoded = json.loads(text)
        same = decoded == metadata
    except (TypeError, ValueError):
        same = False
    except RecursionError:
        raise InvalidJob(_TOO_DEEP) from None
    if not same:
        raise InvalidJob("metadata must be plain JSON: string keys, no NaN or infinity, no lone surrogates")
    if is_nested_deeper(decoded, MAX_NESTING):
        raise InvalidJob(_TOO_DEEP)
    if _NUL.search(text):
        # PostgreSQL's jsonb cannot store it.
        raise InvalidJob("metadata must not contain NUL characters")


def _require_match(pattern: re.Pattern[str], value: object, name: str, what: str) -> None:
    _require(value is None or (isinstance(value, str) and pattern.fullmatch(value)), name, what, value)


def _require(holds: object, name: str, what: str, value: object) -> None:
    if not holds:
        raise InvalidJob(f"{name} must be {what}, not {shown(value)}")
