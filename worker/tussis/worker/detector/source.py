"""Resolve a model's location: a local path, or an S3 URI whose file and manifest are kept in a local cache."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tussis.shared.errors import (
    BucketMissing,
    DiskFull,
    DownloadCut,
    DownloadDamaged,
    ModelRefused,
    ObjectChanged,
    ObjectMissing,
    SettingsInvalid,
    StorageUnavailable,
)
from tussis.shared.s3 import head_object, storage_errors
from tussis.shared.uris import ObjectAddress, parse_s3_uri
from tussis.worker import logs
from tussis.worker.detector.manifest import (
    MAX_BYTES,
    Manifest,
    check_sha256,
    manifest_path,
    no_model,
    parse_manifest,
    sha256_of,
)

_log = logs.get("model_source")

_SCHEME: Final = "s3://"
_CHUNK: Final = 1 << 20


def resolve_model(path_or_s3_uri: str, cache_dir: Path, s3_client_factory: Callable[[], Any]) -> Path:
    """Return the local path of a model file, and download it first if it is in S3.

    An S3 model is downloaded with the manifest beside it (``s3://b/cough.onnx`` and ``s3://b/cough.json``) and checked
    against the manifest's sha256. ``cache_dir`` keeps both files under both entity tags: unchanged objects are not
    downloaded again, and a changed object is never combined with an older one. The entity tags and the manifest are
    requested from S3 on every call, and the cached model must have the SHA-256 of that manifest. For a local path only
    the existence of the file is checked; :meth:`Detector.load` checks the rest.

    Args:
        path_or_s3_uri: path or URI of a file that ends in ``.onnx``.
        cache_dir: created when missing; safe to share between processes.
        s3_client_factory: makes a boto3 S3 client; called for S3 URIs only.

    Raises:
        ModelRefused: the model or its manifest does not exist, or the checksum does not match.
        StorageUnavailable: the object store does not answer, or the download was interrupted.
        StorageAccessDenied, StorageCredentials, InvalidUri, SettingsInvalid: see ``tussis.shared.s3``.
        DiskFull: the disk of the cache is full.
    """
    if path_or_s3_uri.startswith(_SCHEME):
        address = parse_s3_uri(path_or_s3_uri)
        manifest_path(Path(address.key))  # raises ModelRefused unless the key ends in .onnx
        return _cached(address, cache_dir, s3_client_factory())
    if "://" in path_or_s3_uri:
        raise ModelRefused(f"{path_or_s3_uri} is neither a path nor an s3:// URI: give one of the two")
    path = Path(path_or_s3_uri)
    manifest_path(path)
    if not path.is_file():
        raise no_model(path)
    return path


def _cached(address: ObjectAddress, cache_dir: Path, s3: Any) -> Path:
    # Keys are not paths: "models//a.onnx" and "models/a.onnx" are different objects.
    beside = ObjectAddress(address.bucket, address.key.removesuffix(".onnx") + ".json")
    name = address.key.rpartition("/")[2]
    model_etag, manifest_etag = _etag(s3, address), _etag(s3, beside)
    # Always from S3: whoever can write to the cache folder can write a model and a manifest that match each other.
    described = _read(s3, beside, manifest_etag)
    manifest = parse_manifest(described, beside.uri)
    tags = "\n".join((address.uri, model_etag, manifest_etag))
    entry = cache_dir / "models" / hashlib.sha256(tags.encode("utf-8")).hexdigest()[:32]
    with _cache_errors(cache_dir):
        if entry.exists():
            if _is_whole(entry / name, manifest, described):
                return entry / name
            _log.warning("model_cache_refused", path=str(entry), reason="it is not what is in S3: downloading it again")
            _remove(entry)
        entry.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, because a rename works only within one file system.
        draft = Path(tempfile.mkdtemp(dir=entry.parent, prefix=f".{entry.name}."))
        try:
            with manifest_path(draft / name).open("xb") as file:
                file.write(described)
                file.flush()
                os.fsync(file.fileno())
            _download(s3, address, model_etag, draft / name)
            check_sha256((draft / name).read_bytes(), manifest, address.uri)
            _publish(draft, entry)
        finally:
            shutil.rmtree(draft, ignore_errors=True)  # does not exist any more after _publish
    return entry / name


def _etag(s3: Any, address: ObjectAddress) -> str:
    with _absence(address):
        return head_object(s3, address.bucket, address.key).etag


def _read(s3: Any, address: ObjectAddress, etag: str) -> bytes:
    """A manifest's bytes; one more than a manifest may have, if it is longer."""
    with _body(s3, address, etag) as body:
        data: bytes = body.read(MAX_BYTES + 1)
    return data


def _download(s3: Any, address: ObjectAddress, etag: str, path: Path) -> None:
    with _body(s3, address, etag) as body, path.open("xb") as file:
        for chunk in body.iter_chunks(_CHUNK):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _body(s3: Any, address: ObjectAddress, etag: str) -> Iterator[Any]:
    try:
        with _absence(address), storage_errors(address.uri):
            body = s3.get_object(Bucket=address.bucket, Key=address.key, IfMatch=f'"{etag}"')["Body"]
            try:
                yield body
            finally:
                body.close()
    except ObjectChanged:
        raise StorageUnavailable(f"{address.uri} was replaced while it was downloaded: try again") from None
    except (DownloadCut, DownloadDamaged) as error:
        raise StorageUnavailable(f"{error}: try again") from error


def _is_whole(model: Path, manifest: Manifest, described: bytes) -> bool:
    """Whether the cache has this manifest, and the model that it describes."""
    try:
        return manifest_path(model).read_bytes() == described and sha256_of(model.read_bytes()) == manifest.sha256
    except OSError:
        return False


def _remove(entry: Path) -> None:
    if entry.is_symlink():
        entry.unlink()
    else:
        shutil.rmtree(entry)


def _publish(draft: Path, entry: Path) -> None:
    draft.chmod(0o755)
    try:
        draft.rename(entry)
    except OSError as error:
        # Another process has published the same bytes.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


@contextmanager
def _absence(address: ObjectAddress) -> Iterator[None]:
    """Convert the errors for a missing object, which are about recordings, to :class:`ModelRefused`."""
    try:
        yield
    except (ObjectMissing, BucketMissing) as error:
        kind = "model file" if address.key.endswith(".onnx") else "manifest"
        raise ModelRefused(f"no {kind} {address.uri}: {error}") from None


@contextmanager
def _cache_errors(cache_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"no space for the model in {cache_dir}: free space, or set TUSSIS_MODEL_CACHE_DIR"
            ) from None
        raise SettingsInvalid(
            f"cannot store the model in {cache_dir} ({error.strerror}): set TUSSIS_MODEL_CACHE_DIR to a writable folder"
        ) from None
