"""Names of files for S3 keys, and new folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tussis.shared.errors import OutputUnwritable
from tussis.worker.export.folders import file_name, new_folder

KEYS = st.text(min_size=1, max_size=1024) | st.lists(
    st.sampled_from(["..", ".", "/", "\\", "a", "é", "-", "~", "\n", "\x1b", "CON", " ", "\u202e", "%2f"]), max_size=40
).map("".join)


@given(KEYS, st.integers(min_value=1))
def test_a_name_stays_in_its_folder(key: str, number: int) -> None:
    name = file_name(key, str(number), ".wav")

    assert Path(name).name == name
    assert (Path("/folder") / name).resolve().parent == Path("/folder")
    assert not name.startswith((".", "-"))
    assert len(name.encode()) <= 255
    assert name.isprintable()
    assert name.endswith(f"-{number}.wav")


@given(KEYS, KEYS, st.integers(min_value=1), st.integers(min_value=1))
def test_two_numbers_give_two_names_whatever_the_keys_are(key: str, other: str, number: int, second: int) -> None:
    same = file_name(key, str(number), ".wav").casefold() == file_name(other, str(second), ".wav").casefold()

    assert not same or number == second


def test_a_name_is_readable() -> None:
    assert file_name("ward/1/Café au lait.wav", "17", ".labels.txt") == "ward_1_Café_au_lait.wav-17.labels.txt"
    assert file_name("../../etc/passwd", "17_0", ".wav") == "etc_passwd-17_0.wav"
    assert file_name("///", "17", ".wav") == "recording-17.wav"


def test_a_new_folder_is_new_or_empty(tmp_path: Path) -> None:
    new_folder(tmp_path / "new")
    new_folder(tmp_path / "new")
    (tmp_path / "new" / "file").touch()

    for folder, says in (
        (tmp_path / "new", "it is not empty"),
        (tmp_path / "no" / "folder", "No such file"),
        (tmp_path / "new" / "file", "File exists"),
    ):
        with pytest.raises(OutputUnwritable, match=says):
            new_folder(folder)
