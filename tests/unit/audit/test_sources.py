"""Which recordings the arguments and the names in files stand for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tussis.shared.errors import AnswersInvalid, LabelsInvalid, ObjectMissing
from tussis.shared.s3 import ListedObject
from tussis.worker.cli import sources
from tussis.worker.cli.sources import expand
from tussis.worker.evaluation.matching import names_of

KEYS = ["a.wav", "a.wav.bak", "b/c.wav", "b/d.wav", "e.wav"]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    def listing(s3: Any, bucket: str, prefix: str) -> Iterator[ListedObject]:
        assert bucket == "clinic"
        yield from (ListedObject(key, "etag", 1) for key in KEYS if key.startswith(prefix))

    monkeypatch.setattr(sources, "list_objects", listing)


def expanded(*arguments: str) -> list[str]:
    return list(expand(arguments, lambda: None))


def test_folders_and_files_are_recordings_once_each(tmp_path: Path) -> None:
    for name in ("x/b.wav", "x/y/a.mp3", "x/.hidden", "c.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    folder, file, missing = str(tmp_path / "x"), str(tmp_path / "c.wav"), str(tmp_path / "missing.wav")

    found = expanded(file, folder, missing, file)

    assert found == [file, f"{folder}/b.wav", f"{folder}/y/a.mp3", missing]


@pytest.mark.parametrize(
    ("uri", "keys"),
    [
        ("s3://clinic", KEYS),
        ("s3://clinic/", KEYS),
        ("s3://clinic/b/", ["b/c.wav", "b/d.wav"]),
        ("s3://clinic/a.wav", ["a.wav"]),
        ("s3://clinic/a", ["a.wav", "a.wav.bak"]),
    ],
)
@pytest.mark.usefixtures("bucket")
def test_a_uri_is_an_object_or_a_prefix(uri: str, keys: list[str]) -> None:
    assert expanded(uri) == [f"s3://clinic/{key}" for key in keys]


@pytest.mark.usefixtures("bucket")
def test_a_prefix_of_nothing_is_an_error() -> None:
    with pytest.raises(ObjectMissing, match="no object has a key that begins with s3://clinic/z"):
        expanded("s3://clinic/z")


def test_a_name_is_a_source_or_its_end(tmp_path: Path) -> None:
    local = str(tmp_path / "x" / "a.wav")
    found = names_of(
        [local, "s3://clinic/b/c.wav", "s3://clinic/b/d.wav", "s3://clinic/no.wav"],
        [f"{tmp_path}/x/../x/a.wav", "c.wav", "s3://clinic/b/d.wav", "elsewhere.wav", "wav"],
        LabelsInvalid,
    )

    assert found == {
        local: f"{tmp_path}/x/../x/a.wav",
        "s3://clinic/b/c.wav": "c.wav",
        "s3://clinic/b/d.wav": "s3://clinic/b/d.wav",
    }


def test_a_name_of_two_recordings_and_two_names_of_one_are_errors() -> None:
    with pytest.raises(LabelsInvalid, match=r"'a.wav' stands for 2 recordings.*write a longer path"):
        names_of(["s3://clinic/x/a.wav", "s3://clinic/y/a.wav"], ["a.wav"], LabelsInvalid)
    with pytest.raises(AnswersInvalid, match="stand for the same recording"):
        names_of(["s3://clinic/x/a.wav"], ["a.wav", "x/a.wav"], AnswersInvalid)
