"""Reads a file of labels: a CSV with the columns ``uri`` and ``label``."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Final

from tussis.shared.errors import FileUnreadable, InvalidUri, LabelsInvalid
from tussis.shared.uris import parse_s3_uri, shown

_LABELS: Final = {
    **dict.fromkeys(("1", "true", "yes", "cough"), True),
    **dict.fromkeys(("0", "false", "no", "no cough", "no-cough", "no_cough"), False),
}


def read_labels(path: Path) -> dict[str, bool]:
    """URI -> whether the recording has a cough. Other columns of the file are ignored.

    Raises:
        FileUnreadable: the file does not exist or may not be read.
        LabelsInvalid: it is not UTF-8, or not a CSV with these columns; a URI or a label is not valid; or a URI has two
            different labels.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise LabelsInvalid(f"{path} is not UTF-8 text: save it as CSV in UTF-8") from None
    except OSError as error:
        raise FileUnreadable(f"cannot read {path}: {error.strerror or error}") from error
    reader = csv.DictReader(io.StringIO(content, newline=""))
    try:
        missing = {"uri", "label"} - set(reader.fieldnames or ())
        if missing:
            raise LabelsInvalid(
                f"{path} has no column {' and no column '.join(sorted(missing))}: write uri,label first"
            )
        labels: dict[str, bool] = {}
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            uri, label = row["uri"] or "", (row["label"] or "").strip().lower()
            try:
                parse_s3_uri(uri)
            except InvalidUri as error:
                raise LabelsInvalid(f"{place}: {error}") from None
            if label not in _LABELS:
                raise LabelsInvalid(
                    f"{place}: {shown(row['label'])} is not a label: write cough or no-cough, or 1 or 0"
                )
            if labels.setdefault(uri, _LABELS[label]) != _LABELS[label]:
                raise LabelsInvalid(f"{place}: {shown(uri)} has another label in an earlier line")
    except csv.Error as error:
        raise LabelsInvalid(f"{path}, line {reader.line_num + 1}: {error}") from None
    if not labels:
        raise LabelsInvalid(f"{path} has no labels")
    return labels
