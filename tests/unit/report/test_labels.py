"""Files of labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from tussis.shared.errors import FileUnreadable, LabelsInvalid
from tussis.worker.report.labels import read_labels


def test_labels_in_words_and_numbers(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(
        '\ufeffsite,uri,label\nnorth,"s3://clinic/a,1.wav",cough\n,s3://clinic/b.wav, No cough \n'
        ",s3://clinic/c.wav,1\n,s3://clinic/d.wav,0\n,s3://clinic/d.wav,false\n",
        encoding="utf-8",
    )

    assert read_labels(path) == {
        "s3://clinic/a,1.wav": True,
        "s3://clinic/b.wav": False,
        "s3://clinic/c.wav": True,
        "s3://clinic/d.wav": False,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no column label and no column uri"),
        (b"uri,cough\n", "no column label"),
        (b"uri,label\n", "has no labels"),
        (b"uri,label\ns3://clinic/a.wav,maybe\n", "line 2: 'maybe' is not a label"),
        (b"uri,label\ns3://clinic/a.wav\n", "line 2: None is not a label"),
        (b"uri,label\na.wav,1\n", "line 2: not an S3 URI"),
        (b"uri,label\ns3://clinic/a.wav,1\ns3://clinic/a.wav,0\n", "line 3: 's3://clinic/a.wav' has another label"),
        (b"uri,label\n\xff,1\n", "is not UTF-8"),
        (b"uri,label\n" + b"x" * 200_000 + b",1\n", "line 2: field larger"),
    ],
)
def test_a_wrong_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)

    with pytest.raises(LabelsInvalid, match=message) as raised:
        read_labels(path)
    assert str(path) in str(raised.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable, match="No such file"):
        read_labels(tmp_path / "labels.csv")
