"""``tussis models verify``: what it prints, what it refuses, and its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from tests.support.models import write_tiny
from tests.support.sounds import wav
from tussis.shared.errors import ModelRefused, TooFewRecordings, TussisError
from tussis.shared.installation import pip_line
from tussis.worker.cli.models import models
from tussis.worker.modelling.architecture import CoughNet

torch.set_num_threads(1)


def run(*arguments: str | Path) -> Result:
    """The command's result; an error of ours is raised as the root command would see it."""
    result = CliRunner().invoke(models, ["verify", *(str(argument) for argument in arguments)])
    if isinstance(result.exception, TussisError):
        raise result.exception
    return result


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(0.4))
    return path


@pytest.fixture
def state(resnet_network: CoughNet) -> dict[str, Any]:
    return {key: value.clone() for key, value in resnet_network.state_dict().items()}


def saved(folder: Path, state: Mapping[str, Any]) -> Path:
    path = folder / "best.pth"
    torch.save({"model_state_dict": state, "epoch": 12}, path)
    return path


def test_the_checkpoint_of_a_model_agrees(
    tmp_path: Path, state: dict[str, Any], random_resnet: Path, recording: Path
) -> None:
    result = run(saved(tmp_path, state), random_resnet, recording)

    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].endswith("random.onnx: 1 recordings, 1 segments, profile documented")
    assert lines[-1] == "All outputs agree within 0.0001 (and 1e-05 of the value)."
    assert "bag_logit             agrees, largest difference" in result.stdout


def test_a_changed_weight_names_its_layer(
    tmp_path: Path, state: dict[str, Any], random_resnet: Path, recording: Path
) -> None:
    state["backbone.layer3.1.conv2.weight"].view(-1)[5] += 0.5
    checkpoint, layer = saved(tmp_path, state), "backbone.layer3.1.conv2 + backbone.layer3.1.bn2"

    result = run(checkpoint, random_resnet, recording)

    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == f"First layer that differs: {layer}."
    assert f"1 of 1 recordings do not agree within 0.0001 (and 1e-05 of the value), most {recording}." in result.stdout
    (marked,) = [line for line in result.stdout.splitlines() if line.endswith("  differs")]
    assert marked.strip().startswith(layer)

    found = json.loads(run(checkpoint, random_resnet, recording, "--json").stdout)
    assert (found["agrees"], found["first"], found["profile"]) == (False, layer, "documented")
    assert [each["name"] for each in found["layers"] if each["differs"]] == [layer]


class Opens:
    """A pickle of this would write a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_checkpoint_with_code_is_refused_and_does_not_run(tmp_path: Path, tiny_model: Path, recording: Path) -> None:
    path = tmp_path / "best.pth"
    torch.save({"model_state_dict": {}, "config": Opens(tmp_path / "ran")}, path)

    with pytest.raises(ModelRefused, match=r"best\.pth is not a PyTorch checkpoint of weights alone") as refusal:
        run(path, tiny_model, recording)

    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_of_another_architecture_names_its_keys(
    tmp_path: Path, state: dict[str, Any], tiny_model: Path, recording: Path
) -> None:
    state["backbone.fc.weight"] = state.pop("seg_head.weight")

    with pytest.raises(
        ModelRefused, match=r"1 missing \(seg_head\.weight\), 1 unknown \(backbone\.fc\.weight\)"
    ) as refusal:
        run(saved(tmp_path, state), tiny_model, recording)
    assert "\n" not in str(refusal.value)


def test_of_another_graph_only_the_outputs_are_compared(tmp_path: Path, state: dict[str, Any], recording: Path) -> None:
    result = run(saved(tmp_path, state), write_tiny(tmp_path), recording)

    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == (
        "Only the outputs are compared: the graph has 0 layers with weights of shape (64, 3, 7, 7), the network 1."
    )


def test_an_int8_model_is_refused(tmp_path: Path, state: dict[str, Any], int8_resnet: Path, recording: Path) -> None:
    with pytest.raises(ModelRefused, match=r"is in int8.*tussis models compare"):
        run(saved(tmp_path, state), int8_resnet, recording)


def test_what_is_no_recording_is_left_out(tmp_path: Path, state: dict[str, Any], tiny_model: Path) -> None:
    (tmp_path / "notes.txt").write_text("no audio")

    with pytest.raises(TooFewRecordings):
        run(saved(tmp_path, state), tiny_model, tmp_path / "notes.txt")


def test_it_needs_the_extra_models(tmp_path: Path, tiny_model: Path, recording: Path) -> None:
    """In a process of its own: here torchvision is loaded already."""
    script = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from tussis.shared.errors import NotInstalled\n"
        "from tussis.worker.cli.models import models\n"
        "try: models(['verify', *sys.argv[1:]], standalone_mode=False)\n"
        "except NotInstalled as error: print(error)"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "best.pth"), str(tiny_model), str(recording)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )

    assert done.stdout == f"the verification needs torchvision: {pip_line('models')}\n"
