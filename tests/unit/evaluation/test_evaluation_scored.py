"""Files of results, and the names by which labels find recordings."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from tussis.shared.errors import FileUnreadable, LabelsInvalid, ResultsInvalid
from tussis.worker.evaluation.matching import names_of
from tussis.worker.evaluation.scored import logit_of, read_results, scored_of


def a_result(uri: str = "a.wav", probability: float = 0.75, **changes: Any) -> dict[str, Any]:
    return {
        "uri": uri,
        "bag_probability": probability,
        "bag_logit": math.log(3),
        "threshold": 0.5,
        "duration_s": 1.0,
        "analyzed_s": 1.0,
        "model": "cough@1",
        "profile": "documented",
        "coverage": "head",
        "segments": [{"start_s": 0.0, "probability": 0.6}, {"start_s": 0.5, "probability": 0.2}],
    } | changes


def written(path: Path, *results: dict[str, Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, results)) + "\n", encoding="utf-8")
    return path


def test_the_first_line_about_a_recording_counts(tmp_path: Path) -> None:
    failed = {"uri": "b.wav", "error": {"class": "too_short", "message": "0.01 s"}}
    running = {"uri": "c.wav", "bag_probability": None, "model": None, "state": "running"}
    path = written(tmp_path / "r.jsonl", failed, a_result(), a_result(probability=0.1), running, a_result("c.wav"))

    found = read_results(path)

    assert [(one.uri, one.probability) for one in found.scored] == [("a.wav", 0.75), ("c.wav", 0.75)]
    assert found.failed == {"b.wav": "too_short: 0.01 s"}
    assert found.scored[0].setup == "documented, head"
    assert [event.start_s for event in found.scored[0].events(0.3)] == [0.0]


def test_only_the_results_of_a_model(tmp_path: Path) -> None:
    path = written(
        tmp_path / "r.jsonl", a_result(model="other@1"), a_result(probability=0.2), a_result("b.wav", model="cough@2")
    )

    assert [one.probability for one in read_results(path, "cough@1").scored] == [0.2]
    assert len(read_results(path, "cough").scored) == 2
    with pytest.raises(ResultsInvalid, match="no results of the model dog"):
        read_results(path, "dog")


@pytest.mark.parametrize(
    "changes",
    [
        {"bag_probability": 1.5},
        {"bag_probability": "high"},
        {"duration_s": 0},
        {"analyzed_s": None},
        {"segments": [{"start_s": 0.25, "probability": 0.6}]},
        {"segments": [{"start_s": 0.0, "probability": -1}]},
        {"segments": [7]},
        {"segments": 7},
    ],
    ids=str,
)
def test_another_line_is_refused_with_its_number(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = written(tmp_path / "r.jsonl", a_result(), a_result("b.wav", **changes))

    with pytest.raises(ResultsInvalid, match=r"r\.jsonl, line 2: not a result"):
        read_results(path)


@pytest.mark.parametrize("content", [b"", b"\xff\n", b"[1]\n", b'{"uri": "a"}\n{"file"}\n'])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)

    with pytest.raises(ResultsInvalid, match=r"r\.jsonl"):
        read_results(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable, match="No such file"):
        read_results(tmp_path / "r.jsonl")


def test_a_result_without_logit_and_segments() -> None:
    found = scored_of({key: value for key, value in a_result().items() if key not in ("bag_logit", "segments")})

    assert found.logit == pytest.approx(math.log(3))
    assert found.probabilities is None
    assert (logit_of(0), logit_of(1), logit_of(0.5)) == (-math.inf, math.inf, 0)


def test_names_are_sources_their_ends_or_other_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sources = ["s3://clinic/n/a.wav", "s3://clinic/s/a.wav", "rec/b.wav", "c.wav"]
    names = ["n/a.wav", "s3://clinic/s/a.wav", "./b.wav", f"{os.getcwd()}/c.wav", "ec/b.wav", "d.wav"]

    assert names_of(sources, names, LabelsInvalid) == dict(zip(sources, names, strict=False))


def test_a_name_of_several_recordings_is_refused() -> None:
    with pytest.raises(LabelsInvalid, match=r"'a\.wav' stands for 2 recordings.*longer path"):
        names_of(["n/a.wav", "s/a.wav"], ["a.wav"], LabelsInvalid)
    with pytest.raises(LabelsInvalid, match="stand for the same recording"):
        names_of(["n/a.wav"], ["a.wav", "n/a.wav"], LabelsInvalid)
