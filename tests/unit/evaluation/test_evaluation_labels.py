"""Files of labels and of cough events."""

from __future__ import annotations

from pathlib import Path

import pytest

from tussis.shared.errors import FileUnreadable, LabelsInvalid
from tussis.worker.evaluation.labels import Label, read_events, read_labels


def test_every_other_column_is_a_group(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(
        '\ufeffsite,file,label,device\nnorth,"a,1.wav",cough, iPhone \n,s3://clinic/b.wav , no-cough\n',
        encoding="utf-8",
    )

    assert read_labels(path) == (
        Label("a,1.wav", True, {"site": "north", "device": "iPhone"}, 2),
        # A key in a bucket may end with a space. The line is too short: it has no device.
        Label("s3://clinic/b.wav ", False, {"site": "", "device": ""}, 3),
    )


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiters_of_spreadsheets(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("file,label\n a.wav ,1\nb.wav,OTHER\n".replace(",", delimiter))

    assert [(label.file, label.is_cough) for label in read_labels(path)] == [("a.wav", True), ("b.wav", False)]


def test_a_repeated_line_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("uri,label\na.wav,1\na.wav,yes\n")

    assert len(read_labels(path)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,label\n", "no column uri or file: write file,label first"),
        ("file,uri,label\n", "both a column uri and a column file"),
        ("file,label\n,1\n", "line 2 has no file"),
    ],
)
def test_wrong_labels(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(content)

    with pytest.raises(LabelsInvalid, match=message):
        read_labels(path)


def test_events_are_sorted_and_a_line_without_times_is_a_recording_without_events(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("file,start_s,end_s,who\nb.wav,3.5,4,x\na.wav,,\nb.wav,1,1.25,y\nb.wav,4,5,z\n")

    assert read_events(path) == {"b.wav": ((1.0, 1.25), (3.5, 4.0), (4.0, 5.0)), "a.wav": ()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,start_s\n", "no column end_s"),
        ("file,start_s,end_s\n", "has no events"),
        ("file,start_s,end_s\na,1,\n", "line 2: '' is not a time"),
        ("file,start_s,end_s\na,1\n", "line 2: '' is not a time"),
        ("file,start_s,end_s\na,1,inf\n", "line 2: 'inf' is not a time"),
        ("file,start_s,end_s\na,0:03,0:04\n", "line 2: '0:03' is not a time: write seconds"),
        ("file,start_s,end_s\na,2,2\n", "line 2: an event from 2 to 2 s"),
        ("file,start_s,end_s\na,-1,2\n", "line 2: an event from -1 to 2 s"),
        ("file,start_s,end_s\na,1,3\na,2,4\n", "events of 'a' overlap: 1 to 3 s and 2 to 4 s"),
    ],
)
def test_wrong_events(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "events.csv"
    path.write_text(content)

    with pytest.raises(LabelsInvalid, match=message) as raised:
        read_events(path)
    assert str(path) in str(raised.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable, match="No such file"):
        read_events(tmp_path / "events.csv")
