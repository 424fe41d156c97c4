"""``tussis evaluate --from-store``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.store import a_claim, a_job, a_result, claimed, execute, label, model_facts
from tussis.producer.cli import root
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store

Evaluate = Callable[..., Result]


@pytest.fixture
def evaluate(store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """Runs ``tussis evaluate --from-store`` in a folder with labels of a.wav (cough), b.wav (none) and c.wav (none)."""
    monkeypatch.setenv("TUSSIS_DATABASE_URL", store_url)
    monkeypatch.chdir(tmp_path)
    Path("labels.csv").write_text("file,label\ns3://recordings/a.wav,1\ns3://recordings/b.wav,0\nx/c.wav,0\n")
    return lambda *words: CliRunner().invoke(root, ["evaluate", "--labels", "labels.csv", "--from-store", *words])


def stored(store: Store, model: ModelFacts, key: str, probability: float) -> None:
    claim = claimed(store.claim(a_claim(a_job(key=key, again=True, model=label(model)), model)))
    store.complete(claim, a_result(7, probability, bag_logit=probability * 2 - 1))


def test_the_newest_result_of_each_recording(store: Store, model: ModelFacts, evaluate: Evaluate) -> None:
    for key, probability in (("a.wav", 0.2), ("b.wav", 0.7), ("a.wav", 0.9), ("d.wav", 0.5)):
        stored(store, model, key, probability)

    done = evaluate("--json")

    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["model"] == "cough@1"
    assert found["threshold"] == 0.61
    assert found["all"]["decisions"]["counts"] == {
        "threshold": 0.61,
        "true_positive": 1,
        "false_positive": 1,
        "true_negative": 0,
        "false_negative": 0,
    }
    assert found["left_out"]["labels_without_recording"] == ["x/c.wav"]
    assert found["left_out"]["recordings_without_label"] == 1
    # The segments are read: b.wav has no cough, and its last bins are above 0.3.
    assert found["all"]["events"]["recordings"] == 1
    assert found["all"]["events"]["quality"]["false"] == 1


def test_one_of_several_models(store: Store, model: ModelFacts, evaluate: Evaluate) -> None:
    other = model_facts(version="2", sha256="b" * 64)
    store.register_model(other)
    stored(store, model, "a.wav", 0.9)
    stored(store, other, "b.wav", 0.1)

    assert "from 2 models, cough@1, cough@2: choose one with --model" in evaluate().stderr
    assert json.loads(evaluate("--model", "cough@2", "--json").stdout)["all"]["recordings"] == 1
    assert "there are no recordings" in evaluate("--model", "dog").stderr
    assert "there are no recordings" in evaluate("--until", "2020-01-01").stderr


def test_results_whose_segments_are_deleted(
    store: Store, store_url: str, model: ModelFacts, evaluate: Evaluate
) -> None:
    stored(store, model, "b.wav", 0.7)
    execute(store_url, "DELETE FROM segments")

    done = evaluate()

    assert done.exit_code == 0, done.output
    assert "No cough events are measured" in done.stdout
