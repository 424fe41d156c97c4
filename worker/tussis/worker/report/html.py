"""The parts of a report's HTML. Every text from outside passes :func:`text`."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence

from tussis.shared.text import printable
from tussis.worker.report.assets import STYLE


def text(value: object) -> str:
    """A text for an element or an attribute: without control characters, and escaped."""
    return html.escape(printable(str(value)))


def page(title: str, body: str, script: str = "") -> str:
    """A complete document. It loads nothing: its policy admits this style, this script, and data in the document.

    ``title`` is plain text; ``body`` is HTML.
    """
    policy = (
        f"default-src 'none'; style-src {_source(STYLE)}; script-src {_source(script) if script else repr('none')}; "
        "img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n"
        + (f"<script>{script}</script>\n" if script else "")
        + "</body>\n</html>\n"
    )


def _source(content: str) -> str:
    """A script or a style in a policy, by its hash."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def data_uri(kind: str, data: bytes) -> str:
    """Bytes as the address of an image or of audio."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def section(heading: str, *parts: str) -> str:
    """A section. ``parts`` are HTML."""
    return f"<section>\n<h2>{text(heading)}</h2>\n" + "\n".join(part for part in parts if part) + "\n</section>"


def paragraph(sentence: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p{_class(kind)}>{text(sentence)}</p>"


def details(summary: str, body: str) -> str:
    """A part that is closed at first. ``body`` is HTML."""
    return f"<details>\n<summary>{text(summary)}</summary>\n{body}\n</details>"


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """A list of names and values. A value of None is left out."""
    shown = [f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in pairs if value is not None]
    return "<dl>\n" + "\n".join(shown) + "\n</dl>"


def table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[object]], numbers: Iterable[int] = ()) -> str:
    """A table, which scrolls by itself where it is too wide. ``numbers`` are the columns that are aligned right."""
    right = frozenset(numbers)
    kinds = ["number" if column in right else "" for column in range(len(headings))]
    head = "".join(
        f'<th scope="col"{_class(kind)}>{text(name)}</th>' for name, kind in zip(headings, kinds, strict=True)
    )
    body = "\n".join(
        "<tr>"
        + "".join(f"<td{_class(kind)}>{_cell(value)}</td>" for value, kind in zip(row, kinds, strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}">\n<table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


class Markup(str):
    """HTML that a table takes as it is."""

    __slots__ = ()


def _cell(value: object) -> str:
    return value if isinstance(value, Markup) else text(value)


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
