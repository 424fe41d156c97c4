"""Labels of recordings in a bucket, by URI."""

from __future__ import annotations

from pathlib import Path

from tussis.shared.errors import InvalidUri, LabelsInvalid
from tussis.shared.uris import parse_s3_uri
from tussis.worker.evaluation import labels


def read_labels(path: Path) -> dict[str, bool]:
    """URI -> whether the recording has a cough. Other columns of the file are ignored.

    Raises:
        FileUnreadable, LabelsInvalid: as :func:`tussis.worker.evaluation.labels.read_labels`.
        LabelsInvalid: a recording is not named by an S3 URI.
    """
    found = {}
    for label in labels.read_labels(path):
        try:
            parse_s3_uri(label.file)
        except InvalidUri as error:
            raise LabelsInvalid(f"{path}, line {label.line}: {error}") from None
        found[label.file] = label.is_cough
    return found
