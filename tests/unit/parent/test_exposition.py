"""What dead children counted."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict

from tussis.worker.parent.exposition import fold

KEY = '["tussis_attempts", "tussis_attempts_total", {}, "Attempts started."]'


def count(file: Path, value: float) -> None:
    counted = MmapedDict(str(file))
    counted.write_value(KEY, value, 0.0)
    counted.close()


def test_the_counts_of_dead_children_are_added_up_in_one_file(tmp_path: Path) -> None:
    for pid, value in ((11, 2.0), (12, 3.0), (13, 4.0)):
        count(tmp_path / f"counter_{pid}.db", value)

    fold(tmp_path, 11)
    fold(tmp_path, 12)

    assert {file.name for file in tmp_path.iterdir()} == {"counter_0.db", "counter_13.db"}
    [(key, value, _, _)] = MmapedDict.read_all_values_from_file(str(tmp_path / "counter_0.db"))
    assert (key.strip(), value) == (KEY, 5.0)


def test_a_child_that_died_before_its_first_count_leaves_nothing(tmp_path: Path) -> None:
    """Its file is empty, and every scrape would fail on it."""
    (tmp_path / "counter_11.db").touch()

    fold(tmp_path, 11)

    assert not list(tmp_path.iterdir())
