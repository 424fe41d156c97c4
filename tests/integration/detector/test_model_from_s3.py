"""Models on a real object store: downloaded once, checked, kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import PLAIN, Tiny, tiny_bytes, write_tiny
from tests.support.servers import Bucket
from tussis.shared.errors import DiskFull, ModelRefused, SettingsInvalid, StorageUnavailable
from tussis.shared.s3 import s3_client
from tussis.shared.settings import load_settings
from tussis.worker.detector.detector import Detector
from tussis.worker.detector.manifest import sha256_of
from tussis.worker.detector.source import resolve_model


class Counting:
    """The real client; counts the downloads, and may do something before each."""

    def __init__(self, client: Any, before: Callable[[str], None] = lambda key: None) -> None:
        self._client = client
        self._before = before
        self.downloaded: list[str] = []

    def head_object(self, **arguments: Any) -> Any:
        return self._client.head_object(**arguments)

    def get_object(self, **arguments: Any) -> Any:
        self._before(arguments["Key"])
        self.downloaded.append(arguments["Key"])
        return self._client.get_object(**arguments)


@pytest.fixture
def uri(bucket: Bucket, tmp_path: Path) -> str:
    """A tiny model in the bucket, as ``models/cough.onnx``."""
    return upload(bucket, tmp_path / "upload")


def upload(bucket: Bucket, folder: Path, tiny: Tiny = PLAIN, version: str = "1") -> str:
    folder.mkdir(exist_ok=True)
    path = write_tiny(folder, tiny, name="cough", version=version)
    bucket.put("models/cough.json", path.with_suffix(".json").read_bytes())
    return bucket.put("models/cough.onnx", path.read_bytes())


def test_a_model_is_downloaded_with_its_manifest_and_can_be_loaded(bucket: Bucket, uri: str, tmp_path: Path) -> None:
    path = resolve_model(uri, tmp_path / "cache", lambda: bucket.client)

    assert path.name == "cough.onnx"
    assert Detector.load(path, intra_op_threads=1).manifest.label == "cough@1"
    assert path.parent.stat().st_mode & 0o055 == 0o055  # another user's worker may read it


def test_an_unchanged_model_is_not_downloaded_again(bucket: Bucket, uri: str, tmp_path: Path) -> None:
    client = Counting(bucket.client)

    first = resolve_model(uri, tmp_path / "cache", lambda: client)
    second = resolve_model(uri, tmp_path / "cache", lambda: client)

    assert first == second
    # The manifest is compared with S3's every time.
    assert client.downloaded == ["models/cough.json", "models/cough.onnx", "models/cough.json"]


def test_a_new_model_under_the_same_key_takes_its_own_place(bucket: Bucket, uri: str, tmp_path: Path) -> None:
    old = resolve_model(uri, tmp_path / "cache", lambda: bucket.client)
    upload(bucket, tmp_path / "upload", Tiny(bag_logit=None), version="2")

    new = resolve_model(uri, tmp_path / "cache", lambda: bucket.client)

    assert Detector.load(new, intra_op_threads=1).manifest.version == "2"
    assert Detector.load(old, intra_op_threads=1).manifest.version == "1"  # a worker that serves it keeps its file


def test_a_damaged_file_in_the_cache_is_downloaded_again(bucket: Bucket, uri: str, tmp_path: Path) -> None:
    path = resolve_model(uri, tmp_path / "cache", lambda: bucket.client)
    path.write_bytes(path.read_bytes()[:1000])

    again = resolve_model(uri, tmp_path / "cache", lambda: bucket.client)

    assert again == path
    assert Detector.load(again, intra_op_threads=1).manifest.label == "cough@1"


def test_a_forged_model_in_the_cache_is_downloaded_again(bucket: Bucket, uri: str, tmp_path: Path) -> None:
    """Given a model and a manifest in the cache that match each other, but not S3, then neither is used."""
    path = resolve_model(uri, tmp_path / "cache", lambda: bucket.client)
    true = path.read_bytes(), path.with_suffix(".json").read_bytes()
    forged = true[0] + b"\0"
    path.write_bytes(forged)
    described = json.loads(true[1]) | {"sha256": sha256_of(forged)}
    path.with_suffix(".json").write_text(json.dumps(described))

    again = resolve_model(uri, tmp_path / "cache", lambda: bucket.client)

    assert (again.read_bytes(), again.with_suffix(".json").read_bytes()) == true
    # The same for a threshold.
    again.with_suffix(".json").write_bytes(true[1].replace(b'"threshold": 0.', b'"threshold": 0.9'))
    assert again.with_suffix(".json").read_bytes() != true[1]
    again = resolve_model(uri, tmp_path / "cache", lambda: bucket.client)
    assert again.with_suffix(".json").read_bytes() == true[1]


def test_two_processes_at_once_share_one_place(bucket: Bucket, uri: str, tmp_path: Path) -> None:
    """Given another process that finishes its download while ours runs, then ours takes what is there."""
    others: list[Path] = []

    def another(key: str) -> None:
        if key.endswith(".onnx"):
            others.append(resolve_model(uri, tmp_path / "cache", lambda: bucket.client))

    path = resolve_model(uri, tmp_path / "cache", lambda: Counting(bucket.client, another))

    assert others == [path]
    assert [entry.name for entry in (tmp_path / "cache" / "models").iterdir()] == [path.parent.name]


def test_a_missing_model_or_manifest_is_the_operator_s(bucket: Bucket, uri: str, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"no model file s3://.*/models/other\.onnx"):
        resolve_model(bucket.uri("models/other.onnx"), tmp_path, lambda: bucket.client)

    bucket.client.delete_object(Bucket=bucket.name, Key="models/cough.json")
    with pytest.raises(ModelRefused, match=r"no manifest s3://.*/models/cough\.json"):
        resolve_model(uri, tmp_path, lambda: bucket.client)

    with pytest.raises(ModelRefused, match="bucket no-such-bucket does not exist"):
        resolve_model("s3://no-such-bucket/cough.onnx", tmp_path, lambda: bucket.client)
    assert not list(tmp_path.glob("models/*"))


def test_a_manifest_of_another_file_is_refused_and_nothing_is_kept(bucket: Bucket, uri: str, tmp_path: Path) -> None:
    """Given an upload of which only the model has arrived, then it is refused, naming the object."""
    bucket.put("models/cough.onnx", tiny_bytes(Tiny(bag_logit=None)))

    with pytest.raises(ModelRefused, match=r"s3://.*/models/cough\.onnx is not the file that its manifest describes"):
        resolve_model(uri, tmp_path / "cache", lambda: bucket.client)

    assert not list((tmp_path / "cache" / "models").iterdir())


def test_a_wrong_manifest_is_named_by_its_uri(bucket: Bucket, uri: str, tmp_path: Path) -> None:
    bucket.put("models/cough.json", b"{}")

    with pytest.raises(ModelRefused, match=r'^s3://.*/models/cough\.json: "name".* missing'):
        resolve_model(uri, tmp_path / "cache", lambda: bucket.client)


def test_a_model_that_is_replaced_during_the_download_is_no_mixture(bucket: Bucket, uri: str, tmp_path: Path) -> None:
    def replace(key: str) -> None:
        if key.endswith(".onnx"):
            upload(bucket, tmp_path / "upload", Tiny(bag_logit=None), version="2")

    with pytest.raises(StorageUnavailable, match=r"cough\.onnx was replaced while it was downloaded: try again"):
        resolve_model(uri, tmp_path / "cache", lambda: Counting(bucket.client, replace))

    path = resolve_model(uri, tmp_path / "cache", lambda: bucket.client)
    assert Detector.load(path, intra_op_threads=1).manifest.version == "2"


def test_a_cache_that_cannot_be_written_is_a_setting_to_mend(bucket: Bucket, uri: str, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")

    with pytest.raises(SettingsInvalid, match="TUSSIS_MODEL_CACHE_DIR"):
        resolve_model(uri, tmp_path / "cache", lambda: bucket.client)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_full_disk_is_the_operator_s(
    bucket: Bucket, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def full(self: Path, mode: str = "r") -> Any:
        return opened(Path("/dev/full"), "wb", 0) if mode == "xb" else opened(self, mode)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DiskFull, match="no space for the model"):
        resolve_model(uri, tmp_path / "cache", lambda: bucket.client)


def test_a_store_that_does_not_answer_is_transient(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    settings = load_settings(s3_endpoint_url="http://127.0.0.1:9")  # the discard port: nothing listens

    with pytest.raises(StorageUnavailable, match="the object store does not answer"):
        resolve_model(uri, tmp_path, lambda: s3_client(settings))
