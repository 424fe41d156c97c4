"""The pack of real recordings: its folder and its manifest.

``TUSSIS_TEST_DATA`` is the folder. The module is a pytest plugin: ``pack`` is the fixture, and ``listed`` gives the
parameters for a test that runs once per file.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from _pytest.mark.structures import ParameterSet

VARIABLE: Final = "TUSSIS_TEST_DATA"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the manifest."""

    path: str
    """Relative to the pack, with ``/``."""
    label: str
    split: str
    duration_s: float | None
    """Seconds of the audio, None where the manifest gives none."""
    expected: str
    """``ok``, or ``error: CLASS``."""
    note: str

    @property
    def name(self) -> str:
        """The name of the file without its folder."""
        return self.path.rpartition("/")[2]

    @property
    def error_class(self) -> str | None:
        """The expected error class; None for audio that must decode."""
        return self.expected.removeprefix("error: ") if self.expected != "ok" else None


@pytest.fixture(scope="session")
def pack() -> Path:
    """The folder of the pack. If there is none: an error where ``CI`` is true, otherwise a skip."""
    root = _root()
    if root is None:
        reason = f"{VARIABLE} is not set: it names the folder of the pack of real recordings"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    assert (root / "manifest.csv").is_file(), f"{VARIABLE}={root} has no manifest.csv"
    return root


def entries(root: Path, folder: str = "") -> Iterator[Entry]:
    """Yield the rows of the manifest for the files under ``folder``, in its order."""
    with (root / "manifest.csv").open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            if row["path"].startswith(folder):
                yield Entry(
                    path=row["path"],
                    label=row["label"],
                    split=row["split"],
                    duration_s=float(row["duration_s"]) if row["duration_s"] else None,
                    expected=row["expected"],
                    note=row["note"],
                )


def listed(folder: str) -> list[ParameterSet]:
    """Return one parameter for every file under ``folder``, named after the file.

    Without a pack it returns one parameter that no test uses: the test must also take ``pack``, which skips or fails.
    """
    root = _root()
    if root is None or not (root / "manifest.csv").is_file():
        return [pytest.param(None, id="no pack")]
    return [pytest.param(entry, id=entry.name) for entry in entries(root, folder)]


def _root() -> Path | None:
    value = os.environ.get(VARIABLE)
    return Path(value) if value else None
