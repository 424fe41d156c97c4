"""``tussis models quantize``: what it writes, prints and refuses."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from onnx import numpy_helper

from tests.support.convolutional import write_convolutional
from tests.support.models import write_tiny
from tests.support.processes import ROOT
from tests.support.sounds import wav
from tussis.shared.errors import FileUnreadable, ModelRefused, OutputUnwritable, TooFewRecordings, TussisError
from tussis.shared.installation import pip_line
from tussis.worker.cli.models import models
from tussis.worker.detector import probe as probing
from tussis.worker.detector.detector import Detector
from tussis.worker.detector.manifest import read_manifest, sha256_of
from tussis.worker.modelling.quantization import gate
from tussis.worker.modelling.quantization import quantize as quantizing
from tussis.worker.modelling.quantization.gate import MIN_VALIDATION
from tussis.worker.modelling.quantization.graph import Backbone, serialised
from tussis.worker.modelling.quantization.quantize import MIN_CALIBRATION

torch.set_num_threads(1)

DOCUMENT = (ROOT / "docs" / "models.md").read_text()


def run(*arguments: str | Path) -> Result:
    """The command's result; an error of ours is raised as the root command would see it."""
    result = CliRunner().invoke(models, ["quantize", *(str(argument) for argument in arguments)])
    if isinstance(result.exception, TussisError):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Recordings to calibrate on and to validate on, just enough of both, at two depths."""
    calibration, validation = tmp_path_factory.mktemp("calibration"), tmp_path_factory.mktemp("validation")
    for folder, first, count in ((calibration, 0, MIN_CALIBRATION), (validation, 1000, MIN_VALIDATION)):
        (folder / "deeper").mkdir()
        for seed in range(first, first + count):
            place = folder / "deeper" if seed % 2 else folder
            (place / f"{seed}.wav").write_bytes(wav(0.2, seed))
    return calibration, validation


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_convolutional(tmp_path)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_model_that_answers_alike_is_written_beside_its_parent(
    small: Path, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    calibration, validation = folders

    result = run(small, "--calibrate", calibration, "--validate", validation)

    assert result.exit_code == 0, result.output
    assert left(tmp_path) == ["small-int8.json", "small-int8.onnx", "small.json", "small.onnx"]
    path, parent = tmp_path / "small-int8.onnx", read_manifest(small)
    manifest = read_manifest(path)
    assert (manifest.label, manifest.parent) == ("small@1-int8", "small@1")
    assert (manifest.profile, manifest.threshold) == (parent.profile, parent.threshold)
    assert manifest.sha256 == sha256_of(path.read_bytes())
    for said in (
        parent.sha256,
        f"over {MIN_CALIBRATION} recordings",
        "documented",
        parent.provenance,
        "decisions flip",
    ):
        assert said in manifest.provenance
    for said in (
        "decisions flip",
        "|bag probability| shift p99",
        "95 % confidence",
        "MB to",
        "ms per segment",
        "segments",
    ):
        assert said in result.output
    # It is served like any other.
    Detector.load(path, intra_op_threads=1).warm_up()


def test_a_model_that_answers_differently_is_not_written(
    small: Path, folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration, validation = folders
    monkeypatch.setattr(gate, "MAX_SHIFT", 0.0)

    with pytest.raises(ModelRefused) as refused:
        run(small, "--calibrate", calibration, "--validate", validation)

    said = str(refused.value)
    assert "int8 of small@1 fails the gate" in said
    assert f"of {MIN_VALIDATION} decisions flip" in said
    assert "|bag probability| shift p99 0.0" in said
    assert "nothing was written" in said
    assert left(tmp_path) == ["small.json", "small.onnx"]


def test_float16_needs_no_calibration_and_says_what_it_is_for(
    small: Path, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    result = run(small, "--to", "float16", "--validate", folders[1], "--output", tmp_path / "half.onnx")

    assert result.exit_code == 0, result.output
    assert "a CPU computes it in float32 and is not faster" in result.output
    manifest = read_manifest(tmp_path / "half.onnx")
    assert (manifest.version, manifest.parent) == ("1-float16", "small@1")


def test_files_that_are_no_recordings_are_named_and_left_out(
    small: Path, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    calibration, validation = (tmp_path / name for name in ("calibration", "validation"))
    for source, copy in zip(folders, (calibration, validation), strict=True):
        shutil.copytree(source, copy)
    (calibration / "notes.txt").write_text("calibrated on a Monday")
    (validation / "empty.wav").write_bytes(b"")
    # One that was calibrated on says less than the others, and a copy says nothing more.
    shutil.copy(calibration / "0.wav", validation / "seen.wav")
    shutil.copy(validation / "1000.wav", validation / "twice.wav")

    result = run(
        small, "--calibrate", calibration, "--validate", validation, "--max-calibration", str(MIN_CALIBRATION + 1)
    )

    assert result.exit_code == 0, result.output
    lines = [line for line in result.stderr.splitlines() if "skipped: " in line]
    for name, reason in (("notes.txt", ""), ("empty.wav", "no bytes"), ("seen.wav", "before"), ("twice.wav", "before")):
        assert [line for line in lines if name in line and reason in line], (name, lines)
    assert f"of {MIN_VALIDATION} decisions flip" in result.output


@pytest.mark.parametrize(("which", "needed"), [("calibrate", MIN_CALIBRATION), ("validate", MIN_VALIDATION)])
def test_too_few_recordings_are_refused_with_the_number_needed(
    small: Path, folders: tuple[Path, Path], tmp_path: Path, which: str, needed: int
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for seed in range(3):
        (few / f"{seed}.wav").write_bytes(wav(0.2, 5000 + seed))
    chosen = {"calibrate": folders[0], "validate": folders[1], which: few}

    with pytest.raises(TooFewRecordings, match=f"3 recordings to {which} on: give at least {needed}"):
        run(small, "--calibrate", chosen["calibrate"], "--validate", chosen["validate"])
    assert left(tmp_path) == ["few", "small.json", "small.onnx"]


def test_recordings_that_cannot_be_read_do_not_count(small: Path, folders: tuple[Path, Path], tmp_path: Path) -> None:
    calibration = tmp_path / "calibration"
    shutil.copytree(folders[0], calibration)
    (calibration / "0.wav").write_bytes(b"no audio")

    with pytest.raises(TooFewRecordings, match=f"{MIN_CALIBRATION - 1} recordings to calibrate on"):
        run(small, "--calibrate", calibration, "--validate", folders[1])


def test_nothing_is_replaced(small: Path, folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "small-int8.json").write_text("{}")

    with pytest.raises(OutputUnwritable, match=r"small-int8\.json exists"):
        run(small, "--calibrate", folders[0], "--validate", folders[1])


def test_a_model_without_convolutions_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="has no convolution"):
        run(write_tiny(tmp_path), "--calibrate", folders[0], "--validate", folders[1])


def test_a_folder_that_is_not_there_is_named(small: Path, tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable, match="nowhere does not exist"):
        run(small, "--calibrate", tmp_path / "nowhere", "--validate", tmp_path)


def test_int8_asks_for_recordings_to_calibrate_on(small: Path, tmp_path: Path) -> None:
    result = run(small, "--validate", tmp_path)

    assert result.exit_code == 2
    assert "Missing option '--calibrate'" in result.output


def test_the_documents_commands_run(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_convolutional(tmp_path, name="cough", version="3")
    (tmp_path / "recordings").mkdir()
    for name, folder in zip(("train", "val"), folders, strict=True):
        (tmp_path / "recordings" / name).symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^\$ tussis models quantize (.*)$", DOCUMENT, re.MULTILINE)
    assert len(commands) == 2

    for command in commands:
        result = run(*shlex.split(command))
        assert result.exit_code == 0, result.output

    assert read_manifest(Path("cough-int8.onnx")).label == "cough@3-int8"
    assert read_manifest(Path("cough-float16.onnx")).parent == "cough@3"


def test_the_document_names_the_gates_limits() -> None:
    section = DOCUMENT.split("## Smaller and faster models", 1)[1].split("\n## ", 1)[0]

    for said in (
        f"at most {gate.MAX_FLIPS_PER_1000 / 10} %",
        f"at most {gate.MAX_SHIFT}",
        f"At least {MIN_VALIDATION} recordings",
        f"at least {MIN_CALIBRATION} recordings",
        f"than {100 * gate.upper_limit(0, MIN_VALIDATION):.1f} % flip",
    ):
        assert said in " ".join(section.split()), said


def test_it_needs_the_extra_cpu(small: Path, tmp_path: Path) -> None:
    """In a process of its own: here onnx is loaded already."""
    script = (
        "import sys; sys.modules['onnx'] = None\n"
        "from tussis.shared.errors import NotInstalled\n"
        "from tussis.worker.cli.models import models\n"
        "try: models(['quantize', sys.argv[1], '--to', 'float16', '--validate', '.'], standalone_mode=False)\n"
        "except NotInstalled as error: print(error)"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, str(small)], capture_output=True, text=True, check=True, timeout=120
    )

    assert done.stdout == f"quantising needs onnx: {pip_line('cpu')}\n"
    assert left(tmp_path) == ["small.json", "small.onnx"]


def test_a_manifest_that_cannot_be_written_leaves_no_model_behind(
    small: Path, folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, manifest: object) -> None:
        raise OutputUnwritable("no space left")

    monkeypatch.setattr(quantizing, "write_manifest", full)

    with pytest.raises(OutputUnwritable, match="no space left"):
        run(small, "--to", "float16", "--validate", folders[1])
    assert left(tmp_path) == ["small.json", "small.onnx"]


def test_a_model_that_depends_on_its_neighbours_is_not_written(
    small: Path, folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "TOLERANCE", -1.0)

    with pytest.raises(ModelRefused, match="small@1-float16: a recording's logits change by"):
        run(small, "--to", "float16", "--validate", folders[1])
    assert left(tmp_path) == ["small.json", "small.onnx"]


def test_a_model_that_has_no_answer_is_not_written(
    small: Path, folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As float16 has none where float32 goes beyond 65,504."""

    def overflowing(model: Any, backbone: Backbone) -> bytes:
        for weight in model.graph.initializer:
            if weight.name == "bag_weight":
                weight.CopyFrom(numpy_helper.from_array(np.full((8, 1), np.nan, dtype=np.float32), weight.name))
        return serialised(model)

    monkeypatch.setattr(quantizing, "to_float16", overflowing)

    with pytest.raises(ModelRefused, match=r"small@1-float16 gives no valid result for .*: nothing was written"):
        run(small, "--to", "float16", "--validate", folders[1])
    assert left(tmp_path) == ["small.json", "small.onnx"]
