"""Every environment variable that Celery and its parts read is decided: dropped before the import, or harmless."""

from __future__ import annotations

import re
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from tests.support.processes import ROOT
from tests.support.tables import table
from tussis.worker.parent.environment import NAMES, PREFIXES, drop_foreign

#: Read by what a worker does not use: other transports, Celery's own commands, debugging and test helpers, and what
#: starts processes by spawning (billiard's spawn and Windows modules).
UNUSED = re.compile(
    r"celery/(bin|contrib)/|kombu/transport/(?!virtual|redis|base|__init__)|billiard/(spawn|popen_spawn\w*)\.py|/tests?/"
)
#: Read, and left as they are.
HARMLESS = {
    "DJANGO_SETTINGS_MODULE": "the application has no fixups",
    "ITERM_PROFILE": "asks whether a terminal shows pictures",
    "TERM": "asks whether a terminal shows colours",
    "NUMBER_OF_PROCESSORS": "read on Windows",
    "celery_dummy_proxy": "set on macOS, never read",
}
_READ = re.compile(
    r"""(?:environ(?:\.get|\.setdefault|\.pop)?\s*[\[(]|getenv\(|_\w+_env\(|\benv(?:var)?(?::\s*str)?\s*=)"""
    r"""\s*['"](\w+)['"]"""
)


def read_variables() -> dict[str, str]:
    """Each variable that the installed sources name -> one of the files."""
    found: dict[str, str] = {}
    for name in ("celery", "kombu", "billiard", "vine", "amqp"):
        # Not importlib.util.find_spec: a kombu that is imported already has no spec.
        spec = PathFinder.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        folder = Path(spec.origin).parent
        for file in folder.rglob("*.py"):
            place = str(file.relative_to(folder.parent))
            if not UNUSED.search(place):
                for variable in _READ.findall(file.read_text(encoding="utf-8")):
                    found.setdefault(variable, place)
    return found


def test_every_variable_is_decided() -> None:
    read = read_variables()
    assert {"CELERY_BROKER_URL", "REMAP_SIGTERM", "KOMBU_LOG_CONNECTION", "CELERY_RDBSIG", "C_BENCH"} <= set(read)
    undecided = {
        name: place
        for name, place in read.items()
        if not (name.startswith(PREFIXES) or name in NAMES or name in HARMLESS)
    }
    assert undecided == {}


def test_the_document_has_them_all() -> None:
    rows = table(ROOT / "docs" / "settings.md", "variable of Celery's")
    named = {name for row in rows for name in re.findall(r"`([A-Za-z_]+)\*?`", row[0])}
    assert named == {*PREFIXES, *NAMES, *HARMLESS}


def test_they_are_dropped_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://elsewhere")
    monkeypatch.setenv("REMAP_SIGTERM", "SIGQUIT")
    monkeypatch.setenv("TERM", "xterm")
    found = drop_foreign()
    assert {"CELERY_BROKER_URL", "REMAP_SIGTERM"} <= set(found)
    assert "TERM" not in found
    assert drop_foreign() == []
