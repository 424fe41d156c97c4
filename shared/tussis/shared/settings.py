"""All settings, read once from ``TUSSIS_*`` environment variables into a frozen object. Never read at import.

An unknown name that starts with ``TUSSIS_`` is an error. Otherwise a mistyped setting would be ignored without notice.
``docs/settings.md`` lists the settings; a test compares the list with this file.
"""

from __future__ import annotations

import difflib
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from tussis.shared.broker_address import broker_address
from tussis.shared.cores import available_cores
from tussis.shared.errors import SettingsInvalid
from tussis.shared.outcomes import DEFAULT_KEPT, DEFAULT_TTL_S, OutcomeBounds

_PREFIX = "TUSSIS_"
#: Read by the tests, not by Tussis.
_FOREIGN = frozenset({"TUSSIS_TEST_DATA"})


def _cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else _home() / ".cache") / "tussis"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # HOME is not set, and the user (of a container) has no entry in the password file
        return Path("/nonexistent")


class Settings(BaseSettings):
    """The settings. A field's environment variable is its name in upper case after ``TUSSIS_``."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    broker_url: str | None = Field(
        None, description="URL of the broker: redis://[:password@]host:port/db, or rediss:// with TLS"
    )
    broker_ca: Path | None = Field(
        None, description="file with the certificates of the CAs that may sign the broker's certificate, for rediss://"
    )
    broker_cert: Path | None = Field(
        None, description="file with the certificate that Tussis shows to the broker, for rediss://"
    )
    broker_key: Path | None = Field(
        None, description="file with the key of this certificate; unset: the key is in the same file"
    )
    database_url: str | None = Field(
        None, description="connection string of PostgreSQL (libpq): postgresql://user:password@host:port/database"
    )
    database_direct: bool = Field(
        False, description="true: no pooler is in front of PostgreSQL, so statements are prepared"
    )
    s3_endpoint_url: str | None = Field(
        None,
        description="URL of the S3 endpoint; unset: Amazon S3. boto3 reads credentials and region from AWS_*",
    )
    allowed_buckets: str | None = Field(
        None,
        description="buckets (bucket) and prefixes (bucket/prefix/) from which recordings may be read, with commas "
        "between them; unset: all",
    )
    model: str | None = Field(None, description="the model that a worker serves: path or s3:// URI of an ONNX file")
    model_cache_dir: Path = Field(
        default_factory=_cache_dir,
        description="folder for cached models and graphs; unset: tussis in the cache folder of the user",
    )
    run_dir: Path = Field(
        default_factory=lambda: Path(tempfile.gettempdir()), description="folder for the readiness files of workers"
    )
    concurrency: int = Field(
        default_factory=lambda: min(256, available_cores()),
        ge=1,
        le=256,
        description="number of child processes of a worker; unset: one per usable core (affinity, CPU quota)",
    )
    batch_segments: int = Field(
        256,
        ge=32,
        le=8192,
        description="largest number of segments in one run on a GPU, over all recordings in the run",
    )
    batch_wait_ms: float = Field(
        2.0,
        ge=0,
        le=1000,
        description="longest wait of a recording for others that share its run on a GPU, milliseconds",
    )
    log_format: Literal["json", "console"] = Field(
        "json", description="json: one object per line; console: text for people"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level that is logged")
    log_keys: Literal["plain", "hash"] = Field(
        "plain", description="keys of objects in logs: plain; or hash, a keyed hash in their place (`tussis log-key`)"
    )
    log_secret: SecretStr | None = Field(
        None, description="key of these hashes, at least 16 characters, the same for all programs; needed for hash"
    )

    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65_535,
        description="port of the Prometheus metrics of a worker or notifier; unset: no metrics, 0: any free port",
    )
    metrics_host: str = Field("0.0.0.0", description="address on which the metrics are served")

    max_bytes: int = Field(419_430_400, ge=1, description="largest object that is accepted, bytes")
    max_duration_s: float = Field(7500.0, gt=0, description="longest recording that is accepted, seconds")
    min_rate_hz: int = Field(4_000, ge=1, description="lowest sample rate that is accepted, Hz")
    max_rate_hz: int = Field(192_000, ge=1, description="highest sample rate that is accepted, Hz")
    max_channels: int = Field(8, ge=1, description="largest number of channels that is accepted")

    verify_md5: bool = Field(
        True, description="true: compare a download with an entity tag that looks like an MD5 sum; false: do not"
    )
    download_timeout_s: float = Field(60.0, gt=0, description="deadline of one download, seconds")
    decode_timeout_s: float = Field(
        120.0, gt=0, description="deadline of decoding, and separately of preprocessing, seconds"
    )
    decoder_jail: Literal["auto", "require", "off"] = Field(
        "auto",
        description="auto: a worker decodes in a jailed process where the machine has what it needs; require: it does "
        "not start where anything is missing; off: it decodes in its own processes",
    )
    inference_timeout_s: float = Field(120.0, gt=0, description="deadline of one inference, seconds")
    visibility_timeout_s: int = Field(
        60, ge=5, description="time after which a message without a heartbeat goes to another worker, seconds"
    )
    soft_shutdown_s: float = Field(
        20.0,
        gt=0,
        description="time for which a stopping worker continues its recordings before it hands them back, seconds",
    )
    model_wait_s: float = Field(
        900.0,
        gt=0,
        description="time without a live worker for its model after which a job that names the model fails, seconds",
    )
    max_attempts: int = Field(3, ge=1, description="crashed attempts after which a recording fails as worker_crashed")
    retry_total_s: float = Field(
        86_400.0, gt=0, description="largest sum of the delays between attempts after transient errors, seconds"
    )
    retry_base_s: float = Field(2.0, gt=0, description="first delay after a transient error, seconds")
    retry_cap_s: float = Field(300.0, gt=0, description="longest delay between two attempts, seconds")
    outcomes_kept: int = Field(
        DEFAULT_KEPT, ge=1, le=10_000_000, description="number of outcomes of jobs that the broker keeps in its stream"
    )
    outcome_ttl_s: int = Field(
        DEFAULT_TTL_S,
        ge=60,
        le=31_536_000,
        description="time for which the broker keeps the newest outcome of each job, seconds",
    )
    forget_journal: Path | None = Field(
        None, description="file to which `tussis forget` appends its tombstones; unset: they are in the database only"
    )
    webhook_url: str | None = Field(None, description="URL to which `tussis notify` delivers outcomes of jobs")
    webhook_secret: SecretStr | None = Field(
        None, description="secrets with which `tussis notify` signs: whsec_..., several with a space between them"
    )
    webhook_secret_file: Path | None = Field(
        None, description="file with these secrets, one in a line, instead of TUSSIS_WEBHOOK_SECRET"
    )
    sqs_queue_url: str | None = Field(
        None, description="URL of the SQS queue from which `tussis listen sqs` takes notifications of an object store"
    )
    serve_sns_topics: str | None = Field(
        None,
        description="ARNs of the SNS topics whose signed messages `tussis serve` accepts without a token, several with "
        "a space between them",
    )

    serve_host: str = Field("127.0.0.1", description="address on which `tussis serve` listens")
    serve_port: int = Field(8080, ge=0, le=65_535, description="port on which `tussis serve` listens; 0: any free port")
    serve_tokens: SecretStr | None = Field(
        None,
        description="tokens that `tussis serve` accepts: NAME:TOKEN or NAME:sha256:HEX, with a space between them",
    )
    serve_tokens_file: Path | None = Field(
        None, description="file with these tokens, one in a line, instead of TUSSIS_SERVE_TOKENS"
    )
    serve_without_tokens: bool = Field(
        False,
        description="true: `tussis serve` accepts requests without a token, and listens on a loopback address only",
    )
    upload_prefix: str | None = Field(
        None,
        description="s3://bucket/prefix/ under which `tussis serve` and `tussis upload` store recordings; "
        "unset: `tussis serve` accepts no uploads",
    )
    serve_requests_per_s: float = Field(
        50.0,
        gt=0,
        le=100_000,
        description="largest number of requests of one token in a second, counted in each process of `tussis serve`",
    )
    serve_max_depth: int | None = Field(
        None, ge=1, description="number of open jobs above which `tussis serve` enqueues nothing; unset: no bound"
    )
    serve_threads: int = Field(
        32, ge=2, le=1000, description="largest number of requests that `tussis serve` works on at the same time"
    )
    serve_uploads: int = Field(
        16, ge=1, le=1000, description="largest number of uploads that `tussis serve` receives at the same time"
    )
    serve_streams: int = Field(
        100, ge=1, le=10_000, description="largest number of streams of outcomes that `tussis serve` sends"
    )
    serve_idle_s: float = Field(
        20.0, gt=0, description="longest wait of `tussis serve` for the next bytes of a request, seconds"
    )
    serve_upload_timeout_s: float = Field(
        900.0, gt=0, description="deadline of receiving one request in `tussis serve`, seconds"
    )
    serve_allow_origins: str | None = Field(
        None,
        description="origins whose web pages may use `tussis serve` (CORS), with a space between them; *: all; "
        "unset: none",
    )
    serve_old_routes: Literal["off", "tokens", "open"] = Field(
        "tokens",
        description="routes of the old backend in `tussis serve`: off; with tokens; open: also without a token",
    )
    serve_old_wait_s: float = Field(
        30.0, gt=0, le=3600, description="longest wait of the old backend's route for an answer, seconds"
    )
    serve_old_legacy: bool = Field(
        False,
        description="true: the old backend's route asks for the profile legacy and the coverage head; "
        "false: for those of the model",
    )
    serve_stop_s: float = Field(
        20.0, gt=0, description="time in which `tussis serve` finishes its requests when it stops, seconds"
    )
    serve_idempotency_s: int = Field(
        86_400,
        ge=60,
        le=31_536_000,
        description="time for which the broker keeps the answer to a request with an Idempotency-Key, seconds",
    )

    @property
    def lease_s(self) -> float:
        """Seconds for which a claim is held unless it is renewed. The claim of a killed worker expires before its
        messages are delivered again."""
        return self.visibility_timeout_s / 2

    @property
    def outcome_bounds(self) -> OutcomeBounds:
        """How many outcomes of jobs the broker keeps, and for how long."""
        return OutcomeBounds(self.outcomes_kept, self.outcome_ttl_s)

    def need_broker(self) -> str:
        """The broker's URL, with all options of TLS. Raises :class:`SettingsInvalid` when it is not set or wrong."""
        return self.broker_address(_need(self.broker_url, "broker_url", "redis://:password@localhost:6379/0"))

    def broker_address(self, url: str) -> str:
        """A URL of a broker, with all options of TLS. Raises :class:`SettingsInvalid` when an option is wrong."""
        return broker_address(url, ca=self.broker_ca, certificate=self.broker_cert, key=self.broker_key)

    def need_database(self) -> str:
        """The database's URL. Raises :class:`SettingsInvalid` when it is not set. The store parses it."""
        return _need(self.database_url, "database_url", "postgresql://user:password@localhost:5432/tussis")

    def need_model(self) -> str:
        """The model's path or URI. Raises :class:`SettingsInvalid` when it is not set."""
        return _need(self.model, "model", "/models/cough.onnx (or pass --model)")


def load_settings(**overrides: Any) -> Settings:
    """Read the environment. ``overrides`` are options of a command and take precedence, unless they are None.

    Raises :class:`SettingsInvalid` with the name of the variable, for a wrong value or an unknown name.
    """
    known = {_PREFIX + name.upper() for name in Settings.model_fields} | _FOREIGN
    for name in sorted(os.environ):
        if name.startswith(_PREFIX) and name not in known:
            close = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f"did you mean {close[0]}?" if close else "remove it (docs/settings.md lists the settings)"
            raise SettingsInvalid(f"unknown setting {name}: {hint}")
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = _PREFIX + str(first["loc"][0]).upper()
        kind = Settings.model_fields[str(first["loc"][0])].annotation
        # A text may be a URL with a password.
        value = "" if "str" in str(kind).lower() else f" (the value is {first['input']!r})"
        raise SettingsInvalid(f"{name} is wrong: {first['msg']}{value}") from None


def _need(value: str | None, name: str, example: str) -> str:
    if value is None:
        raise SettingsInvalid(f"{_PREFIX}{name.upper()} is not set: for example {example}")
    return value
