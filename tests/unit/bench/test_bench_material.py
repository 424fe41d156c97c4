"""What is measured on: lengths and segments that the names promise, and the train split of real recordings only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tussis.shared.errors import FileUnreadable
from tussis.worker.bench.material import mp3, wav, workloads


def test_recordings_of_one_length_have_the_segments_of_the_contract() -> None:
    short, ten, minute = workloads(["60s", "2s", "10s"], 40, None)

    assert [workload.name for workload in (short, ten, minute)] == ["2s", "10s", "60s"]
    assert set(short.segments) == {4}
    assert set(ten.segments) == {20}
    assert set(minute.segments) == {32}
    assert [len(workload.items) for workload in (short, ten, minute)] == [10, 2, 2]
    assert len({item.data for item in short.items}) == 10


def test_the_same_recordings_every_time() -> None:
    assert workloads(["2s", "mix"], 20, None) == workloads(["2s", "mix"], 20, None)


def test_without_recordings_the_mix_says_that_it_is_synthetic() -> None:
    (mix,) = workloads(["mix"], 40, None)

    assert mix.name == "mix (synthetic)"
    assert sum(mix.segments) >= 40
    assert len(set(mix.segments)) > 1
    assert mix.line().startswith(f"mix (synthetic): {len(mix.items)} recordings, ")


def test_of_a_pack_only_the_train_split_of_coughs_is_taken(tmp_path: Path) -> None:
    (tmp_path / "coughs").mkdir()
    (tmp_path / "background").mkdir()
    rows = ["path,split"]
    for name, split in (("coughs/a.mp3", "train"), ("coughs/b.mp3", "train"), ("coughs/c.mp3", "test")):
        (tmp_path / name).write_bytes(mp3(1.2, 8_000, seed=len(rows)))
        rows.append(f"{name},{split}")
    (tmp_path / "background" / "d.wav").write_bytes(wav(1.0, 9))
    (tmp_path / "manifest.csv").write_text("\n".join([*rows, "background/d.wav,train"]))

    (mix,) = workloads(["mix"], 1_000, tmp_path)

    assert mix.name == "mix"
    assert sorted(item.key for item in mix.items) == ["mix/a.mp3", "mix/b.mp3"]


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")

    with pytest.raises(FileUnreadable, match="no two recordings"):
        workloads(["mix"], 10, tmp_path)
