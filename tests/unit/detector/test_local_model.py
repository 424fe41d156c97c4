"""Models named by a local path."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from tussis.shared.errors import InvalidUri, ModelRefused
from tussis.worker.detector.source import resolve_model


def no_s3() -> NoReturn:
    raise AssertionError("S3 was asked for a local model")


def test_a_local_path_is_taken_as_it_is(tiny_model: Path, tmp_path: Path) -> None:
    assert resolve_model(str(tiny_model), tmp_path / "cache", no_s3) == tiny_model
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("no/such/cough.onnx", "no model file no/such/cough.onnx"),
        ("cough.pt", r"must end in \.onnx"),
        ("https://example.org/cough.onnx", "neither a path nor an s3:// URI"),
        ("s3://bucket/cough.pt", r"must end in \.onnx"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, model: str, said: str) -> None:
    with pytest.raises(ModelRefused, match=said):
        resolve_model(model, tmp_path, no_s3)


def test_a_uri_without_a_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidUri, match="no key"):
        resolve_model("s3://bucket", tmp_path, no_s3)
