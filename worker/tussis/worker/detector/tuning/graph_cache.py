"""The cache of choices and rewritten graphs, which survives restarts.

The folder ``graphs`` in the cache folder has a JSON file for each choice, and the rewritten ONNX files. A choice names
its ONNX file by the SHA-256. Files are written atomically. A file that is damaged, has another format or belongs to
other facts counts as missing.

Whoever can write to the folder can write a choice and a graph that match each other. Therefore nothing here is proof:
``choice.py`` makes the graph again from the model before it believes a choice.
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

from tussis.worker import logs
from tussis.worker.atomic import replace_file
from tussis.worker.detector.arithmetic import ORIGINAL
from tussis.worker.detector.manifest import sha256_of

_log = logs.get("choice")

_FOLDER: Final = "graphs"
#: Only the user of the worker has to read and write here.
_MODE: Final = 0o700
#: The limit for the JSON file of a choice, which has a few short fields.
_MAX_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts that a choice depends on. If one of them changes, a new choice is made."""

    model_sha256: str
    rewriting: int
    """``REWRITE_VERSION``."""
    runtimes: str
    """Names and versions of onnxruntime and torch."""
    threads: int
    """Threads of one run."""
    processor: str

    @property
    def key(self) -> str:
        """The name of the choice's file, without suffix."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode("utf-8")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Choice:
    """The graph that a model is run with."""

    model_sha256: str
    form: str
    """``original``, or the name of the rewriting."""
    file_sha256: str | None
    """SHA-256 of the rewritten ONNX file. None: the original."""
    ratio: float
    """How many times faster than the original it is, from mel images to scores. 1.0 for the original."""


class GraphCache:
    """The folder ``graphs`` in a cache folder."""

    def __init__(self, cache_dir: Path) -> None:
        self.path = cache_dir / _FOLDER

    def find(self, facts: Facts) -> Choice | None:
        """The choice for these facts. None if there is none, or if it or its ONNX file is damaged, which is logged.

        The choice is not proved: see :func:`~tussis.worker.detector.tuning.choice.decide`.
        """
        path = self.path / f"{facts.key}.json"
        try:
            with path.open("rb") as file:
                document = json.loads(file.read(_MAX_BYTES))
            choice = Choice(**document["choice"])
            known = Facts(**document["facts"]) == facts
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            self.refuse(facts, f"the choice is damaged ({type(error).__name__})")
            return None
        sound = isinstance(choice.form, str) and isinstance(choice.ratio, float)
        if not known or not sound or choice.model_sha256 != facts.model_sha256:
            self.refuse(facts, "the choice belongs to another model or machine, or has other fields")
            return None
        if (choice.form == ORIGINAL) != (choice.file_sha256 is None):
            self.refuse(facts, "the choice names a form without its file")
            return None
        if choice.file_sha256 is not None and self.read(choice.file_sha256) is None:
            self.refuse(facts, "the rewritten graph is missing or damaged")
            return None
        return choice

    def refuse(self, facts: Facts, reason: str) -> None:
        """Log that an entry is not used. The caller chooses anew and replaces it."""
        _log.warning("graph_cache_refused", path=str(self.path / f"{facts.key}.json"), reason=reason)

    def read(self, file_sha256: str) -> bytes | None:
        """A rewritten file's bytes. None if it is missing or damaged."""
        try:
            data = self._file(file_sha256).read_bytes()
        except (OSError, ValueError, TypeError):
            return None
        return data if sha256_of(data) == file_sha256 else None

    def keep(self, facts: Facts, choice: Choice, data: bytes | None) -> None:
        """Write a choice, its ONNX file first. Raises OSError."""
        self.path.mkdir(_MODE, parents=True, exist_ok=True)
        if data is not None and choice.file_sha256 is not None and self.read(choice.file_sha256) is None:
            replace_file(self._file(choice.file_sha256), data, durable=True)
        document = {"facts": asdict(facts), "choice": asdict(choice)}
        replace_file(self.path / f"{facts.key}.json", json.dumps(document, indent=2).encode("utf-8"), durable=True)

    @contextmanager
    def deciding(self, facts: Facts) -> Iterator[None]:
        """Hold the lock for these facts, so that one process chooses and the others find its choice. Raises OSError."""
        self.path.mkdir(_MODE, parents=True, exist_ok=True)
        lock = os.open(self.path / f".{facts.key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _file(self, file_sha256: str) -> Path:
        if len(file_sha256) != 64 or not file_sha256.isalnum():
            raise ValueError(f"{file_sha256!r} is no SHA-256")
        return self.path / f"{file_sha256}.onnx"
