"""``tussis models``: what it writes, prints and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from tests.support.models import Tiny, tiny_bytes, write_tiny
from tussis.shared.errors import ModelRefused, OutputUnwritable, TussisError
from tussis.shared.installation import pip_line
from tussis.worker.cli.models import models
from tussis.worker.detector.manifest import read_manifest, sha256_of
from tussis.worker.modelling import export as exporting
from tussis.worker.modelling.architecture import CoughNet

DESCRIBED = ["--name", "cough", "--version", "3", "--profile", "training", "--threshold", "0.61"]


def run(*arguments: str | Path) -> Result:
    """The command's result; an error of ours is raised as the root command would see it."""
    result = CliRunner().invoke(models, [str(argument) for argument in arguments])
    if isinstance(result.exception, TussisError):
        raise result.exception
    return result


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A model without a manifest."""
    path = tmp_path / "cough.onnx"
    path.write_bytes(tiny_bytes())
    return path


def test_init_writes_what_it_was_told_and_prints_it(bare: Path) -> None:
    result = run("init", bare, *DESCRIBED, "--provenance", "site A, March")

    assert result.exit_code == 0, result.output
    assert json.loads(bare.with_suffix(".json").read_text()) == {
        "name": "cough",
        "version": "3",
        "sha256": sha256_of(bare.read_bytes()),
        "profile": "training",
        "threshold": 0.61,
        "provenance": "site A, March",
        "parent": None,
        "coverage": "full",
    }
    for said in (f"wrote {bare.with_suffix('.json')}", "cough@3", "training", "0.61", "site A, March"):
        assert said in result.output


@pytest.mark.parametrize("left_out", ["--name", "--version", "--profile", "--threshold"])
def test_init_guesses_nothing(bare: Path, left_out: str) -> None:
    index = DESCRIBED.index(left_out)

    result = run("init", bare, *DESCRIBED[:index], *DESCRIBED[index + 2 :])

    assert result.exit_code == 2
    assert f"Missing option '{left_out}'" in result.output
    assert not bare.with_suffix(".json").exists()


def test_init_keeps_a_manifest_unless_forced(bare: Path) -> None:
    run("init", bare, *DESCRIBED)
    other = [*DESCRIBED[:-1], "0.5"]

    with pytest.raises(OutputUnwritable, match=r"cough\.json exists: .*--force"):
        run("init", bare, *other)
    assert read_manifest(bare).threshold == 0.61

    run("init", bare, *other, "--force")
    assert read_manifest(bare).threshold == 0.5


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--name", "cough@3", "letters, digits"),
        ("--profile", "plain", "use one of documented, training, legacy"),
        ("--threshold", "61", "above 0 and below 1"),
        ("--threshold", "nan", "above 0 and below 1"),
    ],
)
def test_init_refuses_wrong_values(bare: Path, option: str, value: str, said: str) -> None:
    with pytest.raises(ModelRefused, match=said):
        run("init", bare, *DESCRIBED, option, value)
    assert not bare.with_suffix(".json").exists()


def test_init_describes_no_model_that_breaks_the_contract(bare: Path) -> None:
    bare.write_bytes(tiny_bytes(Tiny(opset=16)))

    with pytest.raises(ModelRefused, match=r"cough\.onnx: opset 16"):
        run("init", bare, *DESCRIBED)
    assert not bare.with_suffix(".json").exists()


def test_check_prints_the_facts(tiny_model: Path) -> None:
    result = run("check", tiny_model)

    assert result.exit_code == 0, result.output
    for said in (
        "tiny@1",
        "opset 17, batch dynamic, segments dynamic",
        "from the graph for bag and segment",
        "neighbours",
        "padding",
        "The model can be served.",
    ):
        assert said in result.output


def test_check_refuses_a_model_that_looks_at_its_neighbours(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="other recordings in the batch"):
        run("check", write_tiny(tmp_path, Tiny(looks_at_neighbours=True)))


def test_check_refuses_a_model_without_a_manifest(bare: Path) -> None:
    with pytest.raises(ModelRefused, match="no manifest"):
        run("check", bare)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Give either --random or --checkpoint"),
        (["--random", "1", "--checkpoint", "a.pt"], "Give either --random or --checkpoint"),
        (["--random", "1", "--name", "cough"], "together, or none"),
        (["--random", "1", *DESCRIBED], "omit --name, --version"),
        (["--checkpoint", "a.pt", "--name", "cough"], "together, or none"),
        (["--random", "-1"], "not in the range"),
    ],
)
def test_export_says_how_it_is_used(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = run("export", tmp_path / "out.onnx", *arguments)

    assert result.exit_code == 2
    assert said in result.output
    assert not list(tmp_path.iterdir())


def test_export_keeps_files_unless_forced(bare: Path) -> None:
    with pytest.raises(OutputUnwritable, match=r"cough\.onnx exists: .*--force"):
        run("export", bare, "--random", "1")


def test_export_needs_the_extra_models(tmp_path: Path) -> None:
    """In a process of its own: here torchvision is loaded already."""
    script = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from tussis.shared.errors import NotInstalled\n"
        "from tussis.worker.cli.models import models\n"
        "try: models(['export', sys.argv[1], '--random', '1'], standalone_mode=False)\n"
        "except NotInstalled as error: print(error)"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "out.onnx")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert done.stdout == f"the export needs torchvision: {pip_line('models')}\n"
    assert not list(tmp_path.iterdir())


@pytest.fixture
def exported_before(random_resnet: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The random model's bytes, taken in place of exporting anew; what is verified is still this file."""
    data = random_resnet.read_bytes()
    monkeypatch.setattr(exporting, "to_onnx", lambda network: data)
    return data


def test_export_from_a_checkpoint_with_and_without_a_manifest(
    tmp_path: Path, resnet_network: CoughNet, exported_before: bytes
) -> None:
    torch.save({"model_state_dict": resnet_network.state_dict()}, tmp_path / "best.pt")
    out = tmp_path / "cough.onnx"

    result = run("export", out, "--checkpoint", tmp_path / "best.pt")

    assert result.exit_code == 0, result.output
    assert f"next: tussis models init {out}" in result.output
    assert not (tmp_path / "cough.json").exists()

    result = run("export", out, "--checkpoint", tmp_path / "best.pt", *DESCRIBED, "--force")

    assert result.exit_code == 0, result.output
    assert read_manifest(out).label == "cough@3"
    assert out.read_bytes() == exported_before


def test_export_compares_with_the_checkpoint(tmp_path: Path, exported_before: bytes) -> None:
    """Given a graph of other weights than the checkpoint's, then nothing is written."""
    torch.manual_seed(0)
    torch.save(CoughNet().state_dict(), tmp_path / "best.pt")

    with pytest.raises(ModelRefused, match="differs from torch"):
        run("export", tmp_path / "cough.onnx", "--checkpoint", tmp_path / "best.pt")
    assert not (tmp_path / "cough.onnx").exists()
