"""Tables of the documents, as rows of cells."""

from __future__ import annotations

import re
from pathlib import Path


def table(document: Path, first_header: str) -> list[list[str]]:
    """Return the rows of the Markdown table whose first column has this header, without its two header lines."""
    rows: list[list[str]] = []
    inside = False
    for line in document.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            if inside:
                return rows[1:]
            continue
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if inside:
            rows.append(cells)
        inside = inside or cells[0] == first_header
    assert inside, f"{document} has no table whose first column is {first_header!r}"
    return rows[1:]


def code(cell: str) -> str:
    """Return a cell without its backticks."""
    return cell.strip("`")
