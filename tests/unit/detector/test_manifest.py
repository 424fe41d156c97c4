"""The manifest: what is accepted, and what each refusal says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import write_tiny
from tussis.shared.errors import ModelRefused, OutputUnwritable
from tussis.worker.detector.manifest import (
    Manifest,
    check_sha256,
    manifest_path,
    parse_manifest,
    read_manifest,
    read_model,
    sha256_of,
    write_manifest,
)

GOOD: dict[str, Any] = {
    "name": "cough",
    "version": "3.1+b2",
    "sha256": "0123456789abcdef" * 4,
    "profile": "training",
    "threshold": 0.61,
    "provenance": "Trained in March, Zürich, on site A",
    "parent": "cough@3.0",
}


def parse(document: object) -> Manifest:
    return parse_manifest(json.dumps(document).encode(), "cough.json")


def test_a_good_manifest_is_read_field_by_field() -> None:
    manifest = parse(GOOD)

    assert {name: getattr(manifest, name) for name in GOOD} == GOOD
    assert manifest.label == "cough@3.1+b2"


def test_the_parent_may_be_left_out() -> None:
    assert parse({name: value for name, value in GOOD.items() if name != "parent"}).parent is None


def test_writing_and_reading_give_the_same(tmp_path: Path) -> None:
    manifest = Manifest(**GOOD)

    path = write_manifest(tmp_path / "cough.onnx", manifest)

    assert path == tmp_path / "cough.json"
    assert read_manifest(tmp_path / "cough.onnx") == manifest
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["cough.json"]  # no draft is left


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("name", "cough@3", "letters, digits"),
        ("name", "", "letters, digits"),
        ("name", "my model", "letters, digits"),
        ("name", "cough\n", "letters, digits"),
        ("name", "a" * 101, "at most 100"),
        ("name", "hüsteln", "letters, digits"),
        ("name", None, "letters, digits"),
        ("version", 3, "in quotes"),
        ("version", "3@4", "letters, digits"),
        ("sha256", "0123456789ABCDEF" * 4, "64 hexadecimal digits"),
        ("sha256", "abc", "64 hexadecimal digits"),
        ("profile", "documentd", "use one of documented, training, legacy"),
        ("profile", 1, "preprocessing profile"),
        ("threshold", 0, "above 0 and below 1"),
        ("threshold", 1, "above 0 and below 1"),
        ("threshold", 1.5, "above 0 and below 1"),
        ("threshold", -0.1, "above 0 and below 1"),
        ("threshold", "0.61", "a number between 0 and 1"),
        ("threshold", True, "a number between 0 and 1"),
        ("threshold", None, "a number between 0 and 1"),
        ("provenance", None, "where the weights come from"),
        ("parent", "cough", "NAME@VERSION"),
        ("parent", 4, "NAME@VERSION"),
    ],
)
def test_a_wrong_field_is_named_with_the_file_and_the_remedy(field: str, value: object, said: str) -> None:
    with pytest.raises(ModelRefused) as refusal:
        parse(GOOD | {field: value})

    message = str(refusal.value)
    assert message.startswith(f'cough.json: "{field}"')
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize("field", ["name", "version", "sha256", "profile", "threshold", "provenance"])
def test_a_missing_field_is_named(field: str) -> None:
    with pytest.raises(ModelRefused, match=rf'cough\.json: "{field}" missing'):
        parse({name: value for name, value in GOOD.items() if name != field})


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(ModelRefused, match=r'cough\.json: unknown field "treshold"'):
        parse(GOOD | {"treshold": 0.5})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 50_000, "is not JSON"),
        (b'{"threshold": NaN}', "NaN is not a JSON number"),
        (b'{"threshold": 0.6, "threshold": 0.7}', "a field occurs twice"),
        (b"[]", "it is not a JSON object"),
        (b" " * 70_000, "more than 65536 bytes"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ModelRefused, match=said) as refusal:
        parse_manifest(data, "cough.json")

    assert "\n" not in str(refusal.value)


def test_a_missing_manifest_is_refused_with_the_command_that_writes_it(tmp_path: Path) -> None:
    (tmp_path / "cough.onnx").touch()

    with pytest.raises(ModelRefused, match=r"no manifest .*cough\.json.*tussis models init .*cough\.onnx --name"):
        read_manifest(tmp_path / "cough.onnx")


def test_of_a_missing_model_it_is_not_the_manifest_that_is_missed(tmp_path: Path) -> None:
    """A manifest for it could not be written either."""
    with pytest.raises(ModelRefused, match=r"no model file .*cough\.onnx: check the path; .* s3://"):
        read_manifest(tmp_path / "cough.onnx")


def test_a_manifest_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cough.json").mkdir()

    with pytest.raises(ModelRefused, match="cannot read the manifest"):
        read_manifest(tmp_path / "cough.onnx")


def test_a_model_is_named_onnx() -> None:
    with pytest.raises(ModelRefused, match=r"must end in \.onnx"):
        manifest_path(Path("cough.v2"))


def test_a_missing_model_and_one_that_is_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()

    with pytest.raises(ModelRefused, match="no model file"):
        read_model(tmp_path / "cough.onnx")
    with pytest.raises(ModelRefused, match="cannot read the model"):
        read_model(tmp_path / "folder.onnx")


def test_the_hash_decides_whether_model_and_manifest_belong_together(tmp_path: Path) -> None:
    path = write_tiny(tmp_path)
    data = path.read_bytes()

    check_sha256(data, read_manifest(path), str(path))

    with pytest.raises(ModelRefused, match=r"tiny\.onnx is not the file .*models init --force"):
        check_sha256(data + b" ", read_manifest(path), str(path))
    assert sha256_of(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2


def test_a_manifest_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    with pytest.raises(OutputUnwritable, match="cannot write"):
        write_manifest(tmp_path / "no-such-folder" / "cough.onnx", Manifest(**GOOD))

    (tmp_path / "cough.json").mkdir()
    with pytest.raises(OutputUnwritable, match="cannot write"):
        write_manifest(tmp_path / "cough.onnx", Manifest(**GOOD))
    assert [entry.name for entry in tmp_path.iterdir()] == ["cough.json"]
