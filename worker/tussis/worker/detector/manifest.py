"""The manifest: the file ``cough.json`` beside ``cough.onnx``, which describes the model.

It holds everything except the weights that a result depends on: the preprocessing profile and the threshold. Tussis
never guesses these values. A manifest with a missing or invalid field is refused. ``docs/models.md`` documents the
fields.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from tussis.shared.coverage import Coverage
from tussis.shared.dsp.profiles import profile_named
from tussis.shared.errors import ModelRefused, OutputUnwritable, UnknownProfile
from tussis.worker.atomic import replace_file

#: Names occur in messages, file names, log lines and metrics. ``@`` is excluded: it separates name and version.
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")
#: A version may also contain ``+``: semantic versions with build metadata have it.
_VERSION: Final = re.compile(r"[A-Za-z0-9._+-]{1,100}")
_PARENT: Final = re.compile(_NAME.pattern + "@" + _VERSION.pattern)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
#: A manifest has eight short fields. A larger file is not a manifest.
MAX_BYTES: Final = 65_536
_SUFFIX: Final = ".onnx"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The manifest of a model file. Valid by construction.

    Raises :class:`ModelRefused` when a field is invalid. The message names the field, not the file.
    """

    name: str
    """Letters, digits, dot, dash and underscore, at most 100."""
    version: str
    """Letters, digits, dot, dash, underscore and plus, at most 100."""
    sha256: str
    """SHA-256 of the ONNX file, 64 hexadecimal digits in lower case."""
    profile: str
    """Name of the preprocessing profile that the model was trained under."""
    threshold: float
    """The decision is cough when the bag probability is above it. Between 0 and 1, both excluded."""
    provenance: str
    """Where the weights come from, as free text. May be empty."""
    parent: str | None = None
    """``name@version`` of the model that this one was made from, for instance by quantisation. None: no such model."""
    coverage: str = Coverage.HEAD.value
    """Coverage of an analysis whose job names none: ``head`` or ``full``. A manifest without the field means ``head``,
    as before there was a choice."""

    def __post_init__(self) -> None:
        _check_text("name", self.name, _NAME, "letters, digits, dots, dashes and underscores, at most 100")
        _check_text("version", self.version, _VERSION, "letters, digits and . _ + -, at most 100, in quotes")
        _check_text("sha256", self.sha256, _SHA256, "64 hexadecimal digits in lower case")
        if not isinstance(self.profile, str):
            raise ModelRefused(f'"profile" is {self.profile!r}: write a preprocessing profile\'s name')
        try:
            profile_named(self.profile)
        except UnknownProfile as error:
            raise ModelRefused(f'"profile": {error}') from None
        # bool is a subclass of int.
        if isinstance(self.threshold, bool) or not isinstance(self.threshold, int | float):
            raise ModelRefused(f'"threshold" is {self.threshold!r}: write a number between 0 and 1')
        if not 0 < self.threshold < 1:
            raise ModelRefused(f'"threshold" is {self.threshold!r}: it must be above 0 and below 1')
        if not isinstance(self.provenance, str):
            raise ModelRefused(f'"provenance" is {self.provenance!r}: write where the weights come from, or ""')
        if self.parent is not None:
            _check_text("parent", self.parent, _PARENT, "NAME@VERSION of the model this one was made from, or null")
        if self.coverage not in list(Coverage):
            raise ModelRefused(f'"coverage" is {self.coverage!r}: write {" or ".join(Coverage)}')

    @property
    def label(self) -> str:
        """``name@version``: the model's name in messages and results."""
        return f"{self.name}@{self.version}"

    def to_json(self) -> str:
        """The text of the manifest file."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def manifest_path(model: Path) -> Path:
    """The path of a model file's manifest: ``cough.json`` for ``cough.onnx``.

    Raises :class:`ModelRefused` unless the name ends in ``.onnx``.
    """
    if model.suffix != _SUFFIX:
        raise ModelRefused(f"{model} is not a model file: its name must end in {_SUFFIX}")
    return model.with_suffix(".json")


def read_manifest(model: Path) -> Manifest:
    """Read the manifest beside a model file. The file's checksum is not compared with it.

    Raises :class:`ModelRefused`. The message is one line with the file, the field and the remedy.
    """
    path = manifest_path(model)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        if not model.exists():  # the command in the message below needs the model file
            raise no_model(model) from None
        raise ModelRefused(
            f"no manifest {path} beside the model: write one with"
            f" `tussis models init {model} --name N --version V --profile P --threshold T`"
        ) from None
    except OSError as error:
        raise ModelRefused(f"cannot read the manifest {path}: {error.strerror}") from None
    return parse_manifest(data, str(path))


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Parse a manifest from its bytes. ``where`` names them in errors.

    Raises :class:`ModelRefused`.
    """
    if len(data) > MAX_BYTES:
        raise ModelRefused(f"{where} is not a manifest: it has more than {MAX_BYTES} bytes")
    try:
        document = json.loads(data, object_pairs_hook=_pairs_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # invalid UTF-8 and invalid JSON are both ValueErrors
        raise ModelRefused(f"{where} is not JSON: {error}; write it again with `tussis models init --force`") from None
    if not isinstance(document, dict):
        raise ModelRefused(f"{where} is not a manifest: it is not a JSON object")
    known = {field.name for field in fields(Manifest)}
    unknown = sorted(set(document) - known)
    if unknown:
        raise ModelRefused(f"{where}: unknown field {_quoted(unknown)}: a manifest has {_quoted(sorted(known))}")
    missing = sorted(known - {"parent", "coverage"} - set(document))
    if missing:
        raise ModelRefused(f"{where}: {_quoted(missing)} missing: add it, or use `tussis models init --force`")
    try:
        return Manifest(**document)
    except ModelRefused as error:
        raise ModelRefused(f"{where}: {error}") from None


def write_manifest(model: Path, manifest: Manifest) -> Path:
    """Write the manifest beside a model file, atomically. Replace an older one. Return the path.

    Raises :class:`OutputUnwritable`.
    """
    path = manifest_path(model)
    try:
        replace_file(path, manifest.to_json().encode("utf-8"), durable=True)
    except OSError as error:
        raise OutputUnwritable(f"cannot write {path}: {error.strerror}") from None
    return path


def sha256_of(data: bytes) -> str:
    """SHA-256 as 64 hexadecimal digits in lower case."""
    return hashlib.sha256(data).hexdigest()


def no_model(path: Path) -> ModelRefused:
    """The error for a missing model file."""
    return ModelRefused(f"no model file {path}: check the path; a worker also takes s3://bucket/key.onnx")


def read_model(model: Path) -> bytes:
    """Read a model file.

    Raises :class:`ModelRefused` when the file does not exist or cannot be read.
    """
    manifest_path(model)  # raises ModelRefused unless the name ends in .onnx
    try:
        return model.read_bytes()
    except FileNotFoundError:
        raise no_model(model) from None
    except OSError as error:
        raise ModelRefused(f"cannot read the model {model}: {error.strerror}") from None


def check_sha256(data: bytes, manifest: Manifest, where: str) -> None:
    """Raise :class:`ModelRefused` unless the bytes have the manifest's SHA-256. ``where`` names the file."""
    found = sha256_of(data)
    if found != manifest.sha256:
        raise ModelRefused(
            f"{where} is not the file that its manifest describes (sha256 {found[:12]}..., the manifest"
            f" has {manifest.sha256[:12]}...): restore it, or write its manifest with `tussis models init --force`"
        )


def _check_text(field: str, value: object, pattern: re.Pattern[str], rule: str) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ModelRefused(f'"{field}" is {value!r}: write {rule}')


def _pairs_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a field occurs twice")
    return document


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
