"""``docs/results.ipynb`` runs from the first cell to the last one, and its numbers are those of the database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.store.test_query_coughs import LABELS, fill
from tussis.shared.store.repository import Store

NOTEBOOK = Path(__file__).resolve().parents[3] / "docs" / "results.ipynb"


@pytest.fixture(scope="module")
def filled(shared_store_url: str) -> str:
    with Store.connect(shared_store_url) as store:
        fill(store, shared_store_url)
    return shared_store_url


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The figures that a notebook shows."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    from matplotlib import pyplot

    shown: list[Any] = []
    monkeypatch.setattr(pyplot, "show", lambda: shown.append(pyplot.gcf()))
    yield shown
    pyplot.close("all")


def test_every_cell_runs(
    filled: str, pictures: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUSSIS_DATABASE_URL", filled)
    names: dict[str, Any] = {}
    for number, source in enumerate(cells("code")):
        exec(compile(source, f"cell {number}", "exec"), names)

    told = capsys.readouterr().out
    assert "succeeded  decision True" in told
    assert "silent" in told
    days, count, rate = pictures[0].axes[0].patches, pictures[1].axes[0].patches, pictures[2].axes[0]
    assert [round(day.get_height(), 3) for day in days] == [4.8, 0.0, 1.5]
    assert sum(bar.get_height() for bar in count) == len(names["results"]) == 7
    assert len(rate.patches) == len(names["events"]) == 2
    labels = {uri: label == "true" for uri, label in (line.split(",") for line in LABELS.splitlines()[1:])}
    assert list(names["sweep"](labels, [0.1, 0.7, 0.9])) == [(0.1, 1.0, 0.0), (0.7, 0.5, 0.5), (0.9, 0.0, 1.0)]


def test_it_holds_no_outputs() -> None:
    """Given that outputs of a run may name recordings of a clinic, then the notebook in the repository has none."""
    document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert document["nbformat"] == 4
    code = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert len({cell["id"] for cell in document["cells"]}) == len(document["cells"])


def cells(kind: str) -> list[str]:
    """The sources of the cells of this kind."""
    document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in document["cells"] if cell["cell_type"] == kind]
