"""What ``docs/enqueue.md`` says, for tests that hold the code to it."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
ENQUEUE = DOCS / "enqueue.md"
SCHEMA = DOCS / "message.schema.json"


def section(title: str) -> str:
    """The text under a heading, up to the next heading of its own or a higher level."""
    text = ENQUEUE.read_text(encoding="utf-8")
    heading = re.search(rf"^(#+) {re.escape(title)}.*$", text, re.MULTILINE)
    assert heading, title
    rest = text[heading.end() :]
    following = re.search(rf"^#{{1,{len(heading[1])}}} ", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest


def blocks(title: str, language: str) -> list[str]:
    """The code blocks of a language under a heading."""
    return re.findall(rf"^```{language}\n(.*?)^```$", section(title), re.MULTILINE | re.DOTALL)


def block(title: str, language: str) -> str:
    """The one code block of a language under a heading."""
    (found,) = blocks(title, language)
    return found


def rows(title: str) -> list[list[str]]:
    """The cells of the last table under a heading, without its head; code marks are taken off."""
    table = re.findall(r"(?:^\|.*\|\n)+", section(title), re.MULTILINE)[-1]
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]
