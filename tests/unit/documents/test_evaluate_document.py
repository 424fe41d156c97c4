"""``docs/evaluate.md`` and the code name the same keys, words and numbers."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from tests.support.processes import ROOT
from tussis.worker.cli.evaluate import evaluate
from tussis.worker.cli.evaluate_answers import Gathered
from tussis.worker.cli.evaluate_json import as_object
from tussis.worker.evaluation import evaluation, events, measures
from tussis.worker.evaluation.labels import Label, read_labels
from tussis.worker.evaluation.scored import Scored

DOCUMENT = (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8")
SECTION = DOCUMENT.partition("\n## JSON\n")[2].partition("\n## ")[0]


def test_every_key_of_the_json_is_explained() -> None:
    scored = Scored("a.wav", 0.7, 0.85, 0.5, 2.0, 2.0, "m@1", "documented, full", [0.0], [0.7])
    case = evaluation.case_of(Label("a.wav", False, {}, 2), scored, None)
    found = as_object(
        evaluation.evaluate([case], evaluation.EvaluationRequest(precision=0.9, false_alarms=1.0)),
        [case],
        Gathered({"a.wav": scored}, {}, [], []),
    )

    first_column = re.findall(r"^\| (`[^|]+) \|", SECTION, re.MULTILINE)
    assert {key for cell in first_column for key in re.findall(r"`(\w+)`", cell)} == set(found)
    for part in (found["all"], found["calibration"], found["left_out"]):
        assert all(f"`{key}`" in SECTION for key in part), part.keys()
    assert {field.name for field in fields(measures.Interval)} == set(found["all"]["auroc"])


@pytest.mark.parametrize("word", ["cough", "1", "true", "yes", "no-cough", "0", "false", "no", "other"])
def test_every_word_of_a_label_is_read(tmp_path: Path, word: str) -> None:
    assert re.search(rf"^\| `label` \|.*`{word}`", DOCUMENT, re.MULTILINE)
    path = tmp_path / "labels.csv"
    path.write_text(f"file,label\na.wav,{word}\n")
    assert len(read_labels(path)) == 1


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"{measures.DRAWS:,} draws" in DOCUMENT
    assert f"{measures.CALIBRATION_BINS} bins of equal width" in DOCUMENT
    assert "of 161 between {:g} and {:g}".format(*measures.TEMPERATURES) in DOCUMENT
    assert f"less than {events.BOUT_PAUSE_S:g} s are joined" in DOCUMENT
    assert "the tolerance: {:g} or {:g} s".format(*events.TOLERANCES_S) in DOCUMENT
    assert f"at most {evaluation.MAX_GROUPS} values" in DOCUMENT
    options = {option for parameter in evaluate.params for option in parameter.opts if option.startswith("--")}
    assert set(re.findall(r"`(--[a-z-]+)", DOCUMENT)) - {"--segments"} <= options | {"--json"}
