"""``tussis models compare``: what it prints, and its exit status."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.convolutional import write_convolutional
from tests.support.models import Tiny, write_tiny
from tests.support.sounds import wav
from tussis.shared.errors import (
    LabelsInvalid,
    ModelRefused,
    StorageAccessDenied,
    StorageCredentials,
    TooFewRecordings,
    TussisError,
)
from tussis.worker.cli.models import models
from tussis.worker.cli.models_recordings import Recordings
from tussis.worker.detector.detector import Detector
from tussis.worker.detector.manifest import read_manifest, write_manifest
from tussis.worker.modelling.comparison import ComparedModel, answers_of
from tussis.worker.pipeline.prepare import limits_of


def run(*arguments: str | Path) -> Result:
    """The command's result; an error of ours is raised as the root command would see it."""
    result = CliRunner().invoke(models, ["compare", *(str(argument) for argument in arguments)])
    if isinstance(result.exception, TussisError):
        raise result.exception
    return result


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    (folder / "deeper").mkdir(parents=True)
    for seed in range(6):
        (folder / ("deeper" if seed % 2 else "") / f"{seed}.wav").write_bytes(wav(0.4, seed))
    return folder


def with_threshold(path: Path, threshold: float, **changes: str) -> Path:
    write_manifest(path, replace(read_manifest(path), threshold=threshold, **changes))
    return path


def probabilities(model: Path, recordings: Path) -> dict[str, float]:
    from tussis.shared.settings import load_settings

    loaded = ComparedModel.of(Detector.load(model, intra_op_threads=1))
    found = {}
    for path in recordings.rglob("*.wav"):
        (answer,) = answers_of(path.read_bytes(), [loaded], limits_of(load_settings()))
        found[str(path)] = answer.probability  # type: ignore[union-attr]
    return found


@pytest.fixture
def pair(tmp_path: Path, recordings: Path) -> tuple[Path, Path]:
    """Two models of which the second says cough for exactly the half of the recordings, the first for all."""
    a, b = with_threshold(write_tiny(tmp_path), 1e-6), write_convolutional(tmp_path)
    scores = sorted(probabilities(b, recordings).values())
    return a, with_threshold(b, (scores[2] + scores[3]) / 2)


def test_the_text_has_both_models_side_by_side(pair: tuple[Path, Path], recordings: Path) -> None:
    result = run(*pair, recordings)

    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "A tiny@1 and B small@1: 6 recordings, both float32."
    table = {line[2:13].strip(): line[13:].split() for line in lines[1:12]}
    assert table["numbers"] == ["float32", "float32"]
    assert table["profile"] == ["documented", "documented"]
    assert table["coughs"] == ["6", "3"]
    assert table["size"] == [*f"{pair[0].stat().st_size / 1e6:.2f} MB {pair[1].stat().st_size / 1e6:.2f} MB".split()]
    assert "  flips       3 of 6 decisions (50.00 %): 0 to cough, 3 to no cough" in lines
    assert "times as fast as" in result.stdout
    assert "The largest differences, 6 of 6 recordings:" in lines
    assert [line.endswith("(flips)") for line in lines[-6:]] == [True] * 3 + [False] * 3


def test_the_json_has_every_recording(pair: tuple[Path, Path], recordings: Path) -> None:
    found = json.loads(run(*pair, recordings, "--json").stdout)

    for name, path in zip("ab", pair, strict=True):
        manifest, side = read_manifest(path), found[name]
        assert (side["model"], side["sha256"], side["threshold"]) == (
            manifest.label,
            manifest.sha256,
            manifest.threshold,
        )
        assert (side["numbers"], side["size_bytes"]) == ("float32", path.stat().st_size)
        assert side["segments_per_s"] == pytest.approx(1000 / side["segment_ms"])
        expected = probabilities(path, recordings)
        assert {one["uri"]: one[name]["bag_probability"] for one in found["pairs"]} == expected
    assert all(one["shift"] == one["b"]["bag_probability"] - one["a"]["bag_probability"] for one in found["pairs"])
    assert (found["flips"], found["to_no_cough"], found["to_cough"], found["left_out"]) == (3, 3, 0, [])


@pytest.mark.parametrize(("limit", "status"), [("2", 1), ("3", 0), ("49%", 1), ("50%", 0), ("0", 1)])
def test_more_flips_than_the_limit_give_status_1(
    pair: tuple[Path, Path], recordings: Path, limit: str, status: int
) -> None:
    result = run(*pair, recordings, "--max-flips", limit)

    assert result.exit_code == status
    said = "tussis: 3 of 6 decisions flip, the limit is"
    assert (said in result.stderr) is bool(status)


def test_a_limit_that_is_neither_number_nor_share_is_refused(pair: tuple[Path, Path], recordings: Path) -> None:
    result = run(*pair, recordings, "--max-flips", "few")

    assert result.exit_code == 2
    assert "write for example 5 or 0.5%" in result.stderr


def test_other_profiles_and_coverages_are_in_the_head(pair: tuple[Path, Path], recordings: Path) -> None:
    a, b = pair
    with_threshold(b, 0.5, profile="legacy")
    head = run(a, b, recordings).stdout.splitlines()[0]
    assert head.endswith("The profiles differ (documented and legacy): part of each shift is the preprocessing.")

    with_threshold(b, 0.5, profile="documented", coverage="full")
    head = run(a, b, recordings).stdout.splitlines()[0]
    assert head.endswith(f"The coverages differ ({read_manifest(a).coverage} and full).")


def test_what_is_no_recording_is_named_and_left_out(pair: tuple[Path, Path], recordings: Path) -> None:
    (recordings / "notes.txt").write_text("no audio")

    result = run(*pair, recordings, recordings.parent / "gone.wav", "--json")

    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert len(found["pairs"]) == 6
    assert {Path(one["uri"]).name for one in found["left_out"]} == {"notes.txt", "gone.wav"}
    assert f"left out: {recordings / 'notes.txt'}: " in result.stderr


def test_without_a_recording_nothing_is_compared(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TooFewRecordings, match="no recordings in"):
        run(*pair, tmp_path / "empty")
    with pytest.raises(TooFewRecordings, match="no recording could be compared"):
        run(*pair, tmp_path / "gone.wav")


def test_labels_say_which_model_is_right(pair: tuple[Path, Path], recordings: Path, tmp_path: Path) -> None:
    """Given labels that are B's decisions except one, then B is right where the two differ but there."""
    scores, threshold = probabilities(pair[1], recordings), read_manifest(pair[1]).threshold
    truth = {path: score > threshold for path, score in scores.items()}
    wrong = min(scores, key=lambda path: scores[path])
    truth[wrong] = True
    rows = "".join(f"{Path(path).name},{'cough' if label else 'no-cough'}\n" for path, label in truth.items())
    (tmp_path / "labels.csv").write_text(f"file,label\n{rows}")

    result = run(*pair, recordings, "--labels", tmp_path / "labels.csv", "--json")

    labels = json.loads(result.stdout)["labels"]
    assert (labels["recordings"], labels["coughs"], labels["right"]) == (6, 4, [1, 2])
    assert (labels["a"]["sensitivity"], labels["a"]["specificity"]) == (1, 0)
    assert (labels["b"]["sensitivity"], labels["b"]["specificity"]) == (0.75, 1)
    # Of the 4 x 2 pairs, those of the wrong recording are in the wrong order.
    assert labels["b"]["auroc"] == pytest.approx(6 / 8)

    text = run(*pair, recordings, "--labels", tmp_path / "labels.csv").stdout
    assert "6 labelled recordings, 4 of them coughs. Where the decisions differ, A is right in 1 and B in 2" in text
    assert any(line.split() == ["specificity", "0.0000", "1.0000"] for line in text.splitlines())


def test_wrong_labels_are_refused(pair: tuple[Path, Path], recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,label\n0.wav,maybe\n")
    with pytest.raises(LabelsInvalid, match="maybe"):
        run(*pair, recordings, "--labels", tmp_path / "labels.csv")


def test_a_file_that_is_not_its_manifest_s_is_refused(tmp_path: Path, recordings: Path) -> None:
    a = write_tiny(tmp_path)
    b = write_convolutional(tmp_path)
    b.write_bytes(write_tiny(tmp_path, Tiny(logit_factor=2), name="other").read_bytes())
    with pytest.raises(ModelRefused, match="sha256"):
        run(a, b, recordings)


def test_the_number_types_are_stated(random_resnet: Path, int8_resnet: Path, recordings: Path) -> None:
    result = run(random_resnet, int8_resnet, recordings / "0.wav")

    assert result.stdout.splitlines()[0].endswith("1 recordings, float32 and int8.")
    assert "B is " in result.stdout


class Denied:
    """Reads recordings like an analyzer, with an error for some of them."""

    def __init__(self, errors: dict[str, TussisError]) -> None:
        self.errors = errors
        self.client = None

    def read(self, source: str) -> bytes:
        if source in self.errors:
            raise self.errors[source]
        return source.encode()


def test_one_object_without_access_leaves_the_others() -> None:
    found = Recordings(["a", "b"], Denied({"a": StorageAccessDenied("no right")}))  # type: ignore[arg-type]

    assert list(found.read("comparing")) == [("b", b"b")]
    assert found.left_out == [{"uri": "a", "class": "access_denied", "message": "no right"}]


def test_an_error_of_the_deployment_ends_the_command() -> None:
    found = Recordings(["a", "b"], Denied({"a": StorageCredentials("expired")}))  # type: ignore[arg-type]

    with pytest.raises(StorageCredentials):
        list(found.read("comparing"))
