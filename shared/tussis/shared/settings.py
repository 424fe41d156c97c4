"""Every setting, read once from ``TUSSIS_*`` environment variables into a frozen object. Never read at import.

A name that starts with ``TUSSIS_`` and is none of ours is refused: a setting that is mistyped would otherwise be
ignored in silence. ``docs/operate.md`` lists them; a test holds the list to this file.
"""

from __future__ import annotations

import difflib
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from tussis.shared.cores import available_cores
from tussis.shared.errors import SettingsInvalid

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

    broker_url: str | None = Field(None, description="the broker: redis://[:password@]host:port/db")
    database_url: str | None = Field(
        None, description="PostgreSQL, as libpq reads it: postgresql://user:password@host:port/database"
    )
    database_direct: bool = Field(
        False, description="no pooler between here and PostgreSQL: statements are prepared, which saves time"
    )
    s3_endpoint_url: str | None = Field(
        None, description="the S3 endpoint; unset: Amazon's. Credentials and region are boto3's own (AWS_*)"
    )
    model: str | None = Field(None, description="the model a worker serves: a path or s3:// URI of an ONNX file")
    model_cache_dir: Path = Field(
        default_factory=_cache_dir,
        description="where models and graphs are kept; unset: tussis in the user's cache",
    )
    run_dir: Path = Field(
        default_factory=lambda: Path(tempfile.gettempdir()), description="where a worker keeps its readiness files"
    )
    concurrency: int = Field(
        default_factory=lambda: min(256, available_cores()),
        ge=1,
        le=256,
        description="child processes of a worker; unset: one a core that it may use (affinity, CPU quota)",
    )
    batch_segments: int = Field(
        256, ge=32, le=8192, description="the most segments of one run on a GPU, of all recordings that share it"
    )
    batch_wait_ms: float = Field(
        2.0, ge=0, le=1000, description="how long a recording waits for company before its run on a GPU, milliseconds"
    )
    log_format: Literal["json", "console"] = Field("json", description="json: one object a line; console: for people")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="the least level logged")

    metrics_port: int | None = Field(
        None, ge=0, le=65_535, description="the port of a worker's Prometheus metrics; unset: none, 0: any free one"
    )
    metrics_host: str = Field("0.0.0.0", description="the address that the metrics are served on")

    max_bytes: int = Field(104_857_600, ge=1, description="the largest object, bytes")
    max_duration_s: float = Field(3600.0, gt=0, description="the longest recording, seconds")
    min_rate_hz: int = Field(4_000, ge=1, description="the lowest sample rate, Hz")
    max_rate_hz: int = Field(192_000, ge=1, description="the highest sample rate, Hz")
    max_channels: int = Field(8, ge=1, description="the most channels")

    verify_md5: bool = Field(
        True, description="compare a download with an entity tag that looks like an MD5; false: the store's are none"
    )
    download_timeout_s: float = Field(60.0, gt=0, description="deadline of one download, seconds")
    decode_timeout_s: float = Field(120.0, gt=0, description="deadline of decoding and preprocessing, seconds")
    inference_timeout_s: float = Field(120.0, gt=0, description="deadline of one inference, seconds")
    visibility_timeout_s: int = Field(
        60, ge=5, description="how long a message may stay unacknowledged without a heartbeat, seconds"
    )
    soft_shutdown_s: float = Field(
        20.0, gt=0, description="how long a stopping worker lets its recordings finish before it hands them back, s"
    )
    max_attempts: int = Field(3, ge=1, description="attempts that may end without a word before worker_crashed")
    retry_total_s: float = Field(
        86_400.0, gt=0, description="how long transient faults are retried: the sum of all delays, seconds"
    )
    retry_base_s: float = Field(2.0, gt=0, description="first delay after a transient fault, seconds")
    retry_cap_s: float = Field(300.0, gt=0, description="longest delay between attempts, seconds")

    def need_broker(self) -> str:
        """The broker's URL. Raises :class:`SettingsInvalid` when it is not set."""
        return _need(self.broker_url, "broker_url", "redis://:password@localhost:6379/0")

    def need_database(self) -> str:
        """The database's URL. Raises :class:`SettingsInvalid` when it is not set; whoever connects reads it."""
        return _need(self.database_url, "database_url", "postgresql://user:password@localhost:5432/tussis")

    def need_model(self) -> str:
        """The model's path or URI. Raises :class:`SettingsInvalid` when it is not set."""
        return _need(self.model, "model", "/models/cough.onnx (or pass --model)")


def load_settings(**overrides: Any) -> Settings:
    """Read the environment; ``overrides`` are flags, and those that are None do not count.

    Raises :class:`SettingsInvalid`, naming the variable, for a value that is wrong or a name that is unknown.
    """
    known = {_PREFIX + name.upper() for name in Settings.model_fields} | _FOREIGN
    for name in sorted(os.environ):
        if name.startswith(_PREFIX) and name not in known:
            close = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise SettingsInvalid(f"unknown setting {name}{hint}")
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = _PREFIX + str(first["loc"][0]).upper()
        raise SettingsInvalid(f"{name} is wrong: {first['msg']} (it is {first['input']!r})") from None


def _need(value: str | None, name: str, example: str) -> str:
    if value is None:
        raise SettingsInvalid(f"{_PREFIX}{name.upper()} is not set: for example {example}")
    return value
