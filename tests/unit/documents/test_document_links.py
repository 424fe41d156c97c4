"""Every link of the documents leads to a file and a heading that exist. Every module that they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.processes import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def without_code(document: Path) -> str:
    """The text without its blocks of code."""
    return re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_code(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for name, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", without_code(document)):
        if name.startswith(("http:", "https:")):
            continue
        target = document.parent / name if name else document
        assert target.exists(), f"{document.name}: {name}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{document.name}: {name}#{anchor}"


def test_every_module_that_a_document_names_exists() -> None:
    folders = ("benchmarks", "migrations", "producer", "shared", "tests", "training", "worker")
    modules = [path.relative_to(ROOT).as_posix() for folder in folders for path in (ROOT / folder).rglob("*.py")]
    modules.append("celeryconfig.py")  # a file of Celery's, which workers do not read
    for document in DOCUMENTS:
        for name in re.findall(r"`([\w./-]+\.py)`", without_code(document)):
            assert any(f"/{module}".endswith(f"/{name}") for module in modules), f"{document.name}: {name}"
