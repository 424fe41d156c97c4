"""The manifest: ``cough.json`` beside ``cough.onnx``, which says what the model is and how to ask it.

Everything a result depends on beside the weights stands in it (the preprocessing profile, the threshold), so none of
it is ever guessed: what is missing or wrong is refused. ``docs/models.md`` documents the fields.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from tussis.shared.dsp.profiles import profile_named
from tussis.shared.errors import ModelRefused, OutputUnwritable, UnknownProfile
from tussis.worker.atomic import replace_file

#: A name travels in messages, file names, log lines and metrics, and ``@`` separates it from the version.
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")
#: A version may also hold ``+``, as semantic versions with build metadata do.
_VERSION: Final = re.compile(r"[A-Za-z0-9._+-]{1,100}")
_PARENT: Final = re.compile(_NAME.pattern + "@" + _VERSION.pattern)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
#: Seven short fields; anything longer is another file under this name.
_MAX_BYTES: Final = 65_536
_SUFFIX: Final = ".onnx"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What stands beside a model file. Valid by construction.

    Raises :class:`ModelRefused` when a field is wrong; the message names the field, not the file.
    """

    name: str
    """Letters, digits, dot, dash and underscore, at most 100."""
    version: str
    """As the name, and plus signs."""
    sha256: str
    """Of the ONNX file's bytes, 64 hexadecimal digits in lower case."""
    profile: str
    """Name of the preprocessing profile that the model was trained under."""
    threshold: float
    """Cough when the bag probability is above it; between 0 and 1, both excluded."""
    provenance: str
    """Where the weights come from, in words; may be empty."""
    parent: str | None = None
    """``name@version`` of the model that this one was made from (quantised, for one); None: of none."""

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
        # bool is a kind of int in Python.
        if isinstance(self.threshold, bool) or not isinstance(self.threshold, int | float):
            raise ModelRefused(f'"threshold" is {self.threshold!r}: write a number between 0 and 1')
        if not 0 < self.threshold < 1:
            raise ModelRefused(f'"threshold" is {self.threshold!r}: it must be above 0 and below 1')
        if not isinstance(self.provenance, str):
            raise ModelRefused(f'"provenance" is {self.provenance!r}: write where the weights come from, or ""')
        if self.parent is not None:
            _check_text("parent", self.parent, _PARENT, "NAME@VERSION of the model this one was made from, or null")

    @property
    def label(self) -> str:
        """``name@version``, as messages and results name the model."""
        return f"{self.name}@{self.version}"

    def to_json(self) -> str:
        """The manifest file's text."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def manifest_path(model: Path) -> Path:
    """Where the manifest of a model file stands: ``cough.json`` for ``cough.onnx``.

    Raises :class:`ModelRefused` unless the name ends in ``.onnx``.
    """
    if model.suffix != _SUFFIX:
        raise ModelRefused(f"{model} is not named like a model: the file's name must end in {_SUFFIX}")
    return model.with_suffix(".json")


def read_manifest(model: Path) -> Manifest:
    """The manifest beside a model file; that its ``sha256`` is the file's is not checked here.

    Raises :class:`ModelRefused`, with file, field and remedy in one line.
    """
    path = manifest_path(model)
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        if not model.exists():  # the command below would not find it either
            raise no_model(model) from None
        raise ModelRefused(
            f"no manifest {path} beside the model: write one with"
            f" `tussis models init {model} --name N --version V --profile P --threshold T`"
        ) from None
    except OSError as error:
        raise ModelRefused(f"cannot read the manifest {path}: {error.strerror}") from None
    return parse_manifest(data, str(path))


def parse_manifest(data: bytes, where: str) -> Manifest:
    """The manifest from its bytes; ``where`` names them in errors.

    Raises :class:`ModelRefused`.
    """
    if len(data) > _MAX_BYTES:
        raise ModelRefused(f"{where} is no manifest: it has more than {_MAX_BYTES} bytes")
    try:
        document = json.loads(data, object_pairs_hook=_pairs_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # bad UTF-8 and bad JSON are both ValueErrors
        raise ModelRefused(f"{where} is not JSON: {error}; write it anew with `tussis models init --force`") from None
    if not isinstance(document, dict):
        raise ModelRefused(f"{where} is no manifest: it holds no JSON object")
    known = {field.name for field in fields(Manifest)}
    unknown = sorted(set(document) - known)
    if unknown:
        raise ModelRefused(f"{where}: unknown field {_quoted(unknown)}: a manifest has {_quoted(sorted(known))}")
    missing = sorted(known - {"parent"} - set(document))
    if missing:
        raise ModelRefused(f"{where}: {_quoted(missing)} missing: write it, or use `tussis models init --force`")
    try:
        return Manifest(**document)
    except ModelRefused as error:
        raise ModelRefused(f"{where}: {error}") from None


def write_manifest(model: Path, manifest: Manifest) -> Path:
    """Write the manifest beside a model file, whole or not at all, over an older one; the path written.

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
    """What to say of a model file that is not there."""
    return ModelRefused(f"no model file {path}: check the path; a worker also takes s3://bucket/key.onnx")


def read_model(model: Path) -> bytes:
    """A model file's bytes.

    Raises :class:`ModelRefused` when there is none or it cannot be read.
    """
    manifest_path(model)  # refuses a name that no manifest could stand beside
    try:
        return model.read_bytes()
    except FileNotFoundError:
        raise no_model(model) from None
    except OSError as error:
        raise ModelRefused(f"cannot read the model {model}: {error.strerror}") from None


def check_sha256(data: bytes, manifest: Manifest, where: str) -> None:
    """Raise :class:`ModelRefused` unless the manifest belongs to the model file's bytes; ``where`` names it."""
    found = sha256_of(data)
    if found != manifest.sha256:
        raise ModelRefused(
            f"{where} is not the file that its manifest describes (sha256 {found[:12]}..., the manifest"
            f" says {manifest.sha256[:12]}...): restore it, or write its manifest with `tussis models init --force`"
        )


def _check_text(field: str, value: object, pattern: re.Pattern[str], rule: str) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ModelRefused(f'"{field}" is {value!r}: write {rule}')


def _pairs_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a field stands in it twice")
    return document


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
