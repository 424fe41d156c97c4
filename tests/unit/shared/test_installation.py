"""The line that installs a missing extra names the place that this Tussis came from."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from tussis.shared.installation import pip_line


class Installed:
    """A distribution with this ``direct_url.json``, or with none."""

    def __init__(self, direct_url: dict[str, object] | None) -> None:
        self._text = None if direct_url is None else json.dumps(direct_url)

    def read_text(self, filename: str) -> str | None:
        assert filename == "direct_url.json"
        return self._text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "a checkout"
    made.mkdir()
    return made


def line_for(monkeypatch: pytest.MonkeyPatch, direct_url: dict[str, object] | None) -> str:
    monkeypatch.setattr(metadata, "distribution", lambda name: Installed(direct_url))
    return pip_line("store")


def test_a_checkout_is_installed_again_with_the_extra(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    assert line_for(monkeypatch, {"url": folder.as_uri(), "dir_info": {}}) == f"pip install '{folder}[store]'"


def test_an_editable_checkout_stays_editable(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    direct_url: dict[str, object] = {"url": folder.as_uri(), "dir_info": {"editable": True}}

    assert line_for(monkeypatch, direct_url) == f"pip install -e '{folder}[store]'"


def test_a_wheel_is_installed_again_with_the_extra(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    wheel = folder / "tussis-0.1.0-py3-none-any.whl"
    wheel.touch()

    assert line_for(monkeypatch, {"url": wheel.as_uri(), "archive_info": {}}) == f"pip install '{wheel}[store]'"


@pytest.mark.parametrize("url", ["file:///nowhere/tussis", "https://git.example/tussis.git"])
def test_a_source_that_is_not_here_is_not_named(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert line_for(monkeypatch, {"url": url}) == "pip install '.[store]' in a checkout of Tussis"


def test_a_package_from_an_index_comes_from_the_index_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert line_for(monkeypatch, None) == "pip install 'tussis[store]'"
