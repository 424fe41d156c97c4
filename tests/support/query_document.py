"""``docs/query.md`` and ``docs/schema.md``: their sections, and the SQL of the questions."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
_TEXT = (DOCS / "query.md").read_text(encoding="utf-8")
SCHEMA = (DOCS / "schema.md").read_text(encoding="utf-8")


def sections(text: str) -> dict[str, str]:
    """Return the text under each third-level heading, up to the next heading of the second or third level."""
    found: dict[str, list[str]] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith(("## ", "### ")):
            heading = line.lstrip("# ")
            found[heading] = []
        elif heading:
            found[heading].append(line)
    return {name: "\n".join(lines) for name, lines in found.items()}


SECTIONS = sections(_TEXT)
#: Heading -> its SQL.
QUESTIONS = {
    name: body.split("```sql\n")[1].split("```")[0] for name, body in SECTIONS.items() if re.match(r"\d+\. ", name)
}


def number(title: str) -> int:
    """The number of a question."""
    return int(title.split(".")[0])
