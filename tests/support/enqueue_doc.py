"""Sections of ``docs/enqueue.md`` and ``docs/wire-format.md``, for tests that compare them with the code."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENTS = (DOCS / "enqueue.md", DOCS / "wire-format.md")
SCHEMA = DOCS / "message.schema.json"


def section(title: str) -> str:
    """Return the text under a heading of one document, up to the next heading of the same or a higher level."""
    texts = [document.read_text(encoding="utf-8") for document in DOCUMENTS]
    [heading] = [match for text in texts for match in re.finditer(rf"^(#+) {re.escape(title)}.*$", text, re.MULTILINE)]
    rest = heading.string[heading.end() :]
    following = re.search(rf"^#{{1,{len(heading[1])}}} ", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest


def blocks(title: str, language: str) -> list[str]:
    """Return the code blocks of a language under a heading."""
    return re.findall(rf"^```{language}\n(.*?)^```$", section(title), re.MULTILINE | re.DOTALL)


def block(title: str, language: str) -> str:
    """Return the only code block of a language under a heading."""
    (found,) = blocks(title, language)
    return found


def rows(title: str) -> list[list[str]]:
    """Return the cells of the last table under a heading, without header lines and code marks."""
    table = re.findall(r"(?:^\|.*\|\n)+", section(title), re.MULTILINE)[-1]
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]
