"""``tussis preprocess``: the file it writes, the one line it says instead, and the page that explains it."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pytest

from tests.support.encoding import interleaved, wav
from tests.support.processes import TUSSIS
from tests.support.recordings import cough_like, quantised
from tests.support.reference import assert_same_images, from_integers, reference
from tussis.producer.cli import root
from tussis.shared.dsp.profiles import PROFILES

RATE = 22050
SECONDS = 3.1
DOCUMENT = Path(__file__).parents[2] / "docs" / "preprocessing.md"


@pytest.fixture(autouse=True)
def bare_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("TUSSIS_"):
            monkeypatch.delenv(name)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "recording.wav"
    path.write_bytes(wav(interleaved(pcm()), channels=2, rate_hz=RATE))
    return path


def pcm() -> npt.NDArray[np.int16]:
    return quantised(cough_like(SECONDS, RATE, channels=2), 2).astype(np.int16)


def run(*words: str | Path) -> int:
    """The root command in this process; its exit status."""
    with pytest.raises(SystemExit) as ended:
        root.main(["preprocess", *map(str, words)], prog_name="tussis")
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("name", [None, "documented", "training"])
def test_the_file_holds_the_references_tensors(
    name: str | None, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.npz"
    assert run(recording, "-o", output, *([] if name is None else ["--profile", name])) == 0

    expected = reference(from_integers(pcm(), 16), RATE, name or "documented")
    with np.load(output) as arrays:
        assert set(arrays.files) == {"spectrograms", "segment_mask", "start_s"}
        assert_same_images(arrays["spectrograms"], expected)
        assert arrays["segment_mask"].dtype == np.bool_
        assert np.array_equal(arrays["segment_mask"], expected.segment_mask)
        assert arrays["start_s"].dtype == np.float64
        assert tuple(arrays["start_s"]) == expected.start_s
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1
    assert f"{len(expected.start_s)} segments" in printed.out
    assert f"profile {name or 'documented'}" in printed.out
    assert printed.err == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npz", "recording.wav"]


def test_legacy_is_another_path(recording: Path, tmp_path: Path) -> None:
    for name in ("documented", "legacy"):
        assert run(recording, "-o", tmp_path / name, "--profile", name) == 0
    with np.load(tmp_path / "documented") as one, np.load(tmp_path / "legacy") as other:
        assert one["spectrograms"].shape == other["spectrograms"].shape
        assert np.abs(one["spectrograms"] - other["spectrograms"]).mean() > 1e-3


def test_a_long_recording_says_what_was_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(wav(interleaved(quantised(cough_like(20.0, 8000), 2)), rate_hz=8000))
    assert run(path, "-o", tmp_path / "out.npz") == 0
    assert "32 of 40 segments from 17.50 of 20.00 s" in capsys.readouterr().out


def test_an_older_output_is_replaced_and_named_as_asked(recording: Path, tmp_path: Path) -> None:
    output = tmp_path / "no_suffix"
    output.write_bytes(b"older")
    assert run(recording, "-o", output) == 0
    with np.load(output) as arrays:
        assert arrays["segment_mask"].all()
    assert not (tmp_path / "no_suffix.npz").exists()


MISTAKES = {
    "missing": "cannot read .*gone.wav: No such file",
    "directory": "cannot read .*: Is a directory",
    "text": "text.wav: .*not in a supported audio container",
    "empty": "empty.wav: .*no bytes",
    "too large": "over the limit of 1000 bytes",
    "profile": "no preprocessing profile 'best': use one of documented, training, legacy",
    "no folder": "cannot write .*: there is no folder",
    "output is a folder": "cannot write .*: it exists and is not a plain file",
    "output is a device": "cannot write /dev/null: it exists and is not a plain file",
    "output is the recording": "cannot write .*: it is the recording itself",
    "setting": "unknown setting TUSSIS_MAX_BITES: did you mean TUSSIS_MAX_BYTES",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(
    mistake: str,
    recording: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, output, more = recording, tmp_path / "out.npz", []
    (tmp_path / "text.wav").write_text("this is no audio\n" * 20)
    (tmp_path / "empty.wav").touch()
    match mistake:
        case "missing":
            source = tmp_path / "gone.wav"
        case "directory":
            source = tmp_path
        case "text" | "empty":
            source = tmp_path / f"{mistake}.wav"
        case "too large":
            monkeypatch.setenv("TUSSIS_MAX_BYTES", "1000")
        case "profile":
            more = ["--profile", "best"]
        case "no folder":
            output = tmp_path / "nowhere" / "out.npz"
        case "output is a folder":
            output = tmp_path
        case "output is a device":
            output = Path("/dev/null")
        case "output is the recording":
            output = recording
        case "setting":
            monkeypatch.setenv("TUSSIS_MAX_BITES", "1000")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    assert run(source, "-o", output, *more) == 1

    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(rf"tussis: .*{MISTAKES[mistake]}.*\n", printed.err)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize("older", [None, b"older"])
def test_a_full_disk_leaves_no_half_file(
    older: bytes | None,
    recording: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "out.npz"
    if older is not None:
        output.write_bytes(older)
    whole = np.savez

    def cut_short(stream: BinaryIO, **arrays: npt.NDArray[np.generic]) -> None:
        whole(stream, segment_mask=arrays["segment_mask"])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", cut_short)
    assert run(recording, "-o", output) == 1
    assert capsys.readouterr().err == f"tussis: cannot write {output}: No space left on device\n"
    assert (output.read_bytes() if output.exists() else None) == older
    assert {path.name for path in tmp_path.iterdir()} <= {"out.npz", "recording.wav"}


def test_an_interrupt_leaves_no_half_file(recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(stream: object, **arrays: npt.NDArray[np.generic]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    assert run(recording, "-o", tmp_path / "out.npz") == 130
    assert [path.name for path in tmp_path.iterdir()] == ["recording.wav"]


@pytest.mark.parametrize("words", [[], ["only.wav"], ["-o", "out.npz"], ["a.wav", "b.wav", "-o", "out.npz"]])
def test_wrong_usage_exits_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tussis: ")
    assert line.endswith("(tussis preprocess --help)")


def test_help_names_every_profile_and_array(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    text = capsys.readouterr().out
    for word in [*PROFILES, "spectrograms", "segment_mask", "start_s", "default: documented"]:
        assert word in text


def test_what_the_documentation_shows_works(recording: Path, tmp_path: Path) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    (command,) = re.findall(r"```console\n\$ tussis (.*)\n```", text)
    done = subprocess.run(
        [TUSSIS, *command.split()], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")

    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    checks = [
        "assert spectrograms.shape == (1, len(start_s), 3, 224, 224) and mask.all()",
        "assert prepared.audio.codec == 'pcm_s16' and prepared.segment_mask.all()",
        "assert tensor.shape == (6, 3, 224, 224)",
    ]
    code = "\n".join(f"{block}\n{check}" for block, check in zip(blocks, checks, strict=True))
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, check=True, timeout=120)
