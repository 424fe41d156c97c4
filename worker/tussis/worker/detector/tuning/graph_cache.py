"""What was chosen to run a model with, kept from one start to the next.

``graphs`` in the cache folder holds a JSON file for each decision and the rewritten ONNX files that they name by their
SHA-256. Files appear whole or not at all; whatever is damaged, foreign or of other facts counts as missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tussis.worker.atomic import replace_file
from tussis.worker.detector.manifest import sha256_of

_FOLDER: Final = "graphs"
#: A handful of short fields.
_MAX_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Facts:
    """What a decision depends on: with any of them another, it is made anew."""

    model_sha256: str
    rewriting: int
    """Version of the rewriting."""
    runtimes: str
    """Names and versions."""
    threads: int
    """Of one run."""
    processor: str

    @property
    def key(self) -> str:
        """Names the decision's file."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode("utf-8")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Choice:
    """How a model is run."""

    model_sha256: str
    form: str
    """``original``, or what was rewritten."""
    file_sha256: str | None
    """Of the rewritten ONNX file; None: the original."""
    ratio: float
    """How many times faster than the original, images to scores; 1.0 where nothing was faster."""


class GraphCache:
    """The folder ``graphs`` in a cache folder."""

    def __init__(self, cache_dir: Path) -> None:
        self.path = cache_dir / _FOLDER

    def find(self, facts: Facts) -> Choice | None:
        """The decision made for these facts, its file whole; None: there is none."""
        try:
            with (self.path / f"{facts.key}.json").open("rb") as file:
                document = json.loads(file.read(_MAX_BYTES))
            choice = Choice(**document["choice"])
            known = Facts(**document["facts"]) == facts
        except (OSError, ValueError, TypeError, KeyError):
            return None
        sound = isinstance(choice.form, str) and isinstance(choice.ratio, float)
        if not known or not sound or choice.model_sha256 != facts.model_sha256:
            return None
        return choice if choice.file_sha256 is None or self.read(choice.file_sha256) is not None else None

    def read(self, file_sha256: str) -> bytes | None:
        """A rewritten file's bytes; None where it is missing or damaged."""
        try:
            data = self._file(file_sha256).read_bytes()
        except (OSError, ValueError, TypeError):
            return None
        return data if sha256_of(data) == file_sha256 else None

    def keep(self, facts: Facts, choice: Choice, data: bytes | None) -> None:
        """Write a decision down, its file first. Raises OSError."""
        self.path.mkdir(parents=True, exist_ok=True)
        if data is not None and choice.file_sha256 is not None and self.read(choice.file_sha256) is None:
            replace_file(self._file(choice.file_sha256), data, durable=True)
        document = {"facts": asdict(facts), "choice": asdict(choice)}
        replace_file(self.path / f"{facts.key}.json", json.dumps(document, indent=2).encode("utf-8"), durable=True)

    @contextmanager
    def deciding(self, facts: Facts) -> Iterator[None]:
        """One process at a time: the next one finds what the first has kept. Raises OSError."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path / f".{facts.key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _file(self, file_sha256: str) -> Path:
        if len(file_sha256) != 64 or not file_sha256.isalnum():
            raise ValueError(f"{file_sha256!r} is no SHA-256")
        return self.path / f"{file_sha256}.onnx"
