"""No table and no key of the broker is missing in the lists of what `tussis forget` erases."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tussis.shared import queues
from tussis.shared.store.schema import metadata
from tussis.worker.forget.places import BROKER_KEYS, TABLES

ROOT: Final = Path(__file__).parents[3]
PAGE: Final = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")
#: Texts of the form of a key that are none.
_OTHER: Final = {
    "tussis.analyze",  # the name of the task
    "tussis.body",  # of a request of the gateway
    "tussis.caller",
    "tussis.commands",  # entry points
    "tussis.plain_errors",
    "tussis.verbose",
    "tussis.versions",  # entry points
}


def test_every_table_is_listed() -> None:
    assert set(TABLES) == set(metadata.tables)


def test_every_key_that_the_code_names_is_listed() -> None:
    constants = {
        value
        for name, value in vars(queues).items()
        if name.endswith(("_KEY", "_PREFIX")) and isinstance(value, str) and name != "SENT_PREFIX"
    }
    assert len(constants) > 15
    assert constants | {queues.SENT_PREFIX, *queues.QUEUES} <= set(BROKER_KEYS)
    found = set()
    for folder in ("shared", "worker", "producer"):
        for file in (ROOT / folder).rglob("*.py"):
            found |= set(re.findall(r"""["'](tussis\.[a-z_]+:?)(?=["'{])""", file.read_text(encoding="utf-8")))
    modules = {name for name in found if (ROOT / "shared" / name.replace(".", "/")).exists()}
    assert found - modules - _OTHER - set(BROKER_KEYS) - {"tussis."} == set()


def test_the_page_has_both_lists() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \|$", PAGE, re.MULTILINE)
    listed = dict(rows)
    for name, how in (TABLES | BROKER_KEYS).items():
        assert listed.get(name) == how
