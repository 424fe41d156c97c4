"""``docs/models.md`` and the manifest's schema, held to the code; the document's commands run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from tests.support.models import PLAIN
from tests.support.sounds import wav
from tussis.shared.dsp.profiles import PROFILES
from tussis.worker.cli.models import models
from tussis.worker.detector.contract import MIN_OPSET
from tussis.worker.detector.manifest import Manifest, parse_manifest, read_manifest
from tussis.worker.modelling import export as exporting
from tussis.worker.modelling.architecture import CoughNet

DOCS = Path(__file__).parents[3] / "docs"
DOCUMENT = (DOCS / "models.md").read_text()
SCHEMA = json.loads((DOCS / "manifest.schema.json").read_text())


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    section = DOCUMENT.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_table_of_fields_is_the_manifest_s() -> None:
    assert [row[0].strip("`") for row in rows("The manifest")] == [field.name for field in fields(Manifest)]


def test_the_example_is_a_manifest() -> None:
    example = DOCUMENT.split("```json\n", 1)[1].split("```", 1)[0]

    assert parse_manifest(example.encode(), "docs/models.md").label == "cough@3"
    Draft202012Validator(SCHEMA).validate(json.loads(example))


def test_the_table_of_inputs_and_outputs_is_the_contract_s() -> None:
    ports = (PLAIN.spectrograms, PLAIN.segment_mask, PLAIN.bag_probability, PLAIN.segment_probabilities)
    documented = {row[1].strip("`"): row[3].split("),")[0].strip("()").split(", ") for row in rows("The ONNX file")}

    for port in (*ports, PLAIN.bag_logit, PLAIN.segment_logits):
        assert port is not None
        assert documented.pop(port.name) == [str(size) for size in port.shape]
    assert not documented
    assert f"Opset {MIN_OPSET} or newer" in DOCUMENT


def test_the_schema_knows_the_same_fields_and_profiles() -> None:
    Draft202012Validator.check_schema(SCHEMA)

    assert list(SCHEMA["properties"]) == [field.name for field in fields(Manifest)]
    assert SCHEMA["properties"]["profile"]["enum"] == list(PROFILES)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "cough@3"},
        {"name": "a" * 101},
        {"version": 3},
        {"sha256": "ABC"},
        {"profile": "plain"},
        {"threshold": 0},
        {"threshold": 1},
        {"threshold": True},
        {"provenance": None},
        {"parent": "cough"},
        {"more": 1},
    ],
)
def test_the_schema_refuses_what_tussis_refuses(change: dict[str, Any]) -> None:
    good = {"name": "c", "version": "1", "sha256": "0" * 64, "profile": "legacy", "threshold": 0.5, "provenance": ""}
    validator = Draft202012Validator(SCHEMA)

    assert validator.is_valid(good)
    assert not validator.is_valid(good | change)


def test_every_command_of_the_document_runs(
    tmp_path: Path, random_resnet: Path, resnet_network: CoughNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calibration and export to ONNX are taken from the session's model; the rest is real.

    ``quantize`` has its own test, with a model that takes less time.
    """
    data = random_resnet.read_bytes()
    monkeypatch.setattr(exporting, "random_network", lambda seed: resnet_network)
    monkeypatch.setattr(exporting, "to_onnx", lambda network: data)
    monkeypatch.chdir(tmp_path)
    Path("cough.onnx").write_bytes(data)
    torch.save({"model_state_dict": resnet_network.state_dict(), "epoch": 12, "val_auc": 0.5}, "best.pt")
    Path("cough-int8.onnx").write_bytes(data)
    shutil.copy(random_resnet.with_suffix(".json"), "cough-int8.json")
    Path("recordings/val").mkdir(parents=True)
    Path("recordings/val/a.wav").write_bytes(wav(0.4))
    commands = re.findall(r"^\$ tussis models ((?!quantize).*)$", DOCUMENT, re.MULTILINE)
    assert len(commands) == 7

    for command in commands:
        result = CliRunner().invoke(models, shlex.split(command), catch_exceptions=False)
        assert result.exit_code == 0, result.output

    assert read_manifest(Path("cough.onnx")).label == "cough@3"
    assert read_manifest(Path("random.onnx")).name == "random-resnet18"
