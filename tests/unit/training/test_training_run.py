"""The whole training and its measurement, at toy scale: every step runs, and a second run goes on from the first."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.unit.training.test_training_parts import recording
from training import speech
from training.card import rendered
from training.evaluate import Effort
from training.export import training_of
from training.pack import Wave
from training.results import read
from training.run import Size, run_evaluation, run_training
from tussis.worker.detector.detector import Detector
from tussis.worker.detector.manifest import read_manifest

TOY = Size(scenes=8, utterances=2, checks=12, epochs=1, seed=1, processes=2)
KINDS = ("dog_bark", "person_sneeze", "rain")


@pytest.fixture
def toy_pack(tmp_path: Path) -> Path:
    """Bursts as coughs and hums as backgrounds, in the layout of the pack."""
    root = tmp_path / "pack"
    root.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for split in ("train", "val"):
        for index in range(5):
            is_cough = index < 2
            wave = (
                recording(rng) if is_cough else np.sin(np.arange(40_000) * (0.05 + 0.1 * index)).astype(np.float32) / 2
            )
            name = f"{split}-{index}.wav"
            soundfile.write(root / name, wave, 16_000)
            rows.append(
                {
                    "path": name,
                    "label": "cough" if is_cough else "background",
                    "split": split,
                    "class": "cough" if is_cough else KINDS[index - 2],
                    "note": "channel=telegram" if index else "channel=call-center",
                }
            )
    with (root / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


@pytest.fixture(autouse=True)
def hums_for_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    """No synthesiser is needed to test the training."""

    def library(seed: int, count: int, folder: Path, voices: speech.Voices, processes: int) -> list[Wave]:
        rng = np.random.default_rng(seed)
        return [np.sin(np.arange(20_000) * rng.uniform(0.05, 0.2)).astype(np.float32) for _ in range(count)]

    monkeypatch.setattr(speech, "library", library)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.acceptance
def test_the_training_runs_resumes_and_is_measured(toy_pack: Path, tmp_path: Path) -> None:
    model = tmp_path / "out" / "tussis-reference.onnx"
    said: list[str] = []
    run_training(TOY, toy_pack, tmp_path / "work", model, said.append)
    assert any("8 of 8 scenes" in line for line in said)
    assert any("epoch 1 of 1" in line for line in said)
    Detector.load(model, intra_op_threads=1).warm_up()
    assert training_of(model)["scenes"] == 8
    first = read_manifest(model)
    assert first.label == "tussis-reference@2"

    again: list[str] = []
    run_training(TOY, toy_pack, tmp_path / "work", model, again.append)
    assert not any("of 8 scenes" in line or "epoch" in line for line in again), "kept scenes and checkpoint are used"
    assert read_manifest(model).threshold == first.threshold

    card = tmp_path / "card.md"
    run_evaluation(
        Effort(processes=1, scenes_a_class=1, noisy_scenes_a_class=1), model, toy_pack, "val", card, said.append
    )
    numbers = read(card.with_suffix(".json"))
    assert numbers["recordings"]["coughs"] == 2
    assert numbers["model"]["sha256"] == first.sha256
    assert set(numbers["alarms"]["none"]) == {"all", "everyday", *KINDS}
    assert card.read_text("utf-8") == rendered(numbers)
    assert card.with_suffix(".png").stat().st_size > 1_000
