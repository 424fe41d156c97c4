"""``tussis evaluate`` on a file of results and on recordings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.support.sounds import wav
from tussis.producer.cli import root
from tussis.worker.local import terminal

Evaluate = Callable[..., Result]


@pytest.fixture
def evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """Runs ``tussis evaluate`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(root, ["evaluate", *words])


def result(uri: str, probability: float, **changes: Any) -> str:
    given: dict[str, Any] = {
        "uri": uri,
        "bag_probability": probability,
        "threshold": 0.5,
        "duration_s": 2.0,
        "analyzed_s": 2.0,
        "model": "cough@1",
        "profile": "documented",
        "coverage": "full",
        "segments": [{"start_s": 0.5 * index, "probability": probability} for index in range(4)],
    }
    return json.dumps(given | changes) + "\n"


@pytest.fixture
def files(evaluate: Evaluate) -> None:
    Path("labels.csv").write_text("file,label,site\na.wav,1,north\nb.wav,0,north\nc.wav,1,south\ngone.wav,0,south\n")
    Path("events.csv").write_text("file,start_s,end_s\na.wav,0.1,0.3\nb.wav,,\n")
    Path("r.jsonl").write_text(
        result("rec/a.wav", 0.9)
        + result("rec/b.wav", 0.7)
        + json.dumps({"uri": "rec/c.wav", "error": {"class": "too_short", "message": "0.01 s"}})
        + "\n"
        + result("rec/new.wav", 0.4)
    )


@pytest.mark.usefixtures("files")
def test_results_in_a_file_as_json(evaluate: Evaluate) -> None:
    done = evaluate(
        "--labels", "labels.csv", "--events", "events.csv", "--results", "r.jsonl", "--by", "site", "--json"
    )

    assert done.exit_code == 1, done.output  # a labelled recording failed
    found = json.loads(done.stdout)
    assert (found["model"], found["threshold"], found["setups"]) == ("cough@1", 0.5, ["documented, full"])
    assert found["left_out"] == {
        "labels_without_recording": ["gone.wav"],
        "recordings_without_label": 1,
        "failed": {"rec/c.wav": "too_short: 0.01 s"},
    }
    assert found["all"]["auroc"]["value"] == 1.0
    assert found["all"]["decisions"]["counts"]["false_positive"] == 1
    assert found["all"]["events"]["quality"]["f1_intervals"][0]["value"] == pytest.approx(2 / 3)
    assert list(found["groups"]["site"]) == ["north"]
    # Nothing is NaN, which JSON does not have.
    assert "NaN" not in done.stdout


@pytest.mark.usefixtures("files")
def test_the_text_names_what_is_left_out(evaluate: Evaluate) -> None:
    done = evaluate("--labels", "labels.csv", "--results", "r.jsonl", "--for-precision", "1", "--for-false-alarms", "0")

    assert "cough@1, documented, full: 2 labelled recordings, 1 with a cough and 1 without" in done.stdout
    assert "Labels without a recording or a result: 1: gone.wav." in done.stdout
    assert "Recordings without a label: 1: rec/new.wav." in done.stdout
    assert "Recordings that failed: 1: rec/c.wav (too_short: 0.01 s)." in done.stdout
    assert "sensitivity" in done.stdout
    assert "0.5 *" in done.stdout
    assert "Threshold for a precision of 1: 0.8." in done.stdout
    assert "Threshold for 0 false alarms an hour at most: 0.8." in done.stdout
    assert "measured on the same recordings" in done.stdout


@pytest.mark.usefixtures("files")
def test_a_narrow_terminal_has_no_intervals_in_the_tables(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    done = evaluate("--labels", "labels.csv", "--results", "r.jsonl")

    assert "also have the intervals" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.usefixtures("files")
def test_one_class_is_explained(evaluate: Evaluate) -> None:
    Path("labels.csv").write_text("file,label\na.wav,cough\n")
    done = evaluate("--labels", "labels.csv", "--results", "r.jsonl")

    assert done.exit_code == 0, done.output
    assert "All recordings have a cough: AUROC, average precision and temperature need both kinds." in done.stdout


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--from-store",), "only one of them"),
        (("--profile", "legacy"), "--profile and --coverage are for recordings"),
        (("--prefix", "s3://a/"), "need --from-store"),
        (("--model", "a b"), "is not NAME or NAME@VERSION"),
        (("--model", "dog"), "no labelled recording has a result"),
        (("--by", "device"), "no column 'device' of groups: its columns are site"),
        (("--events", "labels.csv"), "no column end_s"),
    ],
)
def test_wrong_words(evaluate: Evaluate, words: tuple[str, ...], message: str) -> None:
    done = evaluate("--labels", "labels.csv", "--results", "r.jsonl", *words)

    assert done.exit_code != 0
    assert message in done.stderr


@pytest.mark.usefixtures("files")
def test_results_of_several_models_or_thresholds(evaluate: Evaluate) -> None:
    path = Path("r.jsonl")
    path.write_text(result("a.wav", 0.9) + result("b.wav", 0.1, model="cough@2"))
    done = evaluate("--labels", "labels.csv", "--results", "r.jsonl")
    assert "from 2 models, cough@1, cough@2: choose one with --model" in done.stderr

    path.write_text(result("a.wav", 0.9) + result("b.wav", 0.1, threshold=0.6))
    done = evaluate("--labels", "labels.csv", "--results", "r.jsonl")
    assert "2 thresholds, 0.5, 0.6: choose one with --threshold" in done.stderr
    done = evaluate("--labels", "labels.csv", "--results", "r.jsonl", "--threshold", "0.55")
    assert done.exit_code == 0, done.output


@pytest.mark.usefixtures("files")
def test_an_event_of_a_recording_without_label(evaluate: Evaluate) -> None:
    Path("events.csv").write_text("file,start_s,end_s\nx.wav,0.1,0.3\n")
    done = evaluate("--labels", "labels.csv", "--events", "events.csv", "--results", "r.jsonl")

    assert "1 recordings in the file of events have no label, for example 'x.wav'" in done.stderr


@pytest.mark.usefixtures("files")
def test_labels_of_other_recordings(evaluate: Evaluate) -> None:
    Path("labels.csv").write_text("file,label\nz.wav,1\n")
    done = evaluate("--labels", "labels.csv", "--results", "r.jsonl")
    assert "no recording has a label: the first label is for 'z.wav', the first of 4 recordings" in done.stderr

    done = evaluate("--labels", "labels.csv")
    assert "no file exists for a label, for example 'z.wav'" in done.stderr


def test_recordings_are_analysed_as_by_analyze(evaluate: Evaluate, tiny_model: Path) -> None:
    """A folder, and without any recording the paths of the labels beside their file."""
    folder = Path("rec")
    folder.mkdir()
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        (folder / f"{name}.wav").write_bytes(wav(2.5, seed=seed))
    (folder / "broken.wav").write_bytes(b"no sound")
    (folder / "labels.csv").write_text("file,label\na.wav,1\nb.wav,0\nbroken.wav,0\n")
    labels = ("--labels", "rec/labels.csv", "--model", str(tiny_model), "--json")

    named = evaluate(*labels)
    given = evaluate("rec", *labels)

    assert (named.exit_code, given.exit_code) == (1, 1), (named.output, given.output)
    found, again = json.loads(named.stdout), json.loads(given.stdout)
    assert found["all"] == again["all"]
    assert list(found["left_out"]["failed"]) == ["rec/broken.wav"]
    assert again["left_out"]["recordings_without_label"] == 2  # c.wav and the file of labels
    analysed = CliRunner().invoke(root, ["analyze", "rec/a.wav", "rec/b.wav", "--model", str(tiny_model), "--json"])
    Path("r.jsonl").write_text(analysed.stdout)
    stored = evaluate("--labels", "rec/labels.csv", "--results", "r.jsonl", "--json")
    assert json.loads(stored.stdout)["all"] == found["all"]
