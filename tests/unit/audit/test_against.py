"""Another system's answers: the file, and which profile reproduces them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.audits import RATE, audited, bursts, plan_of, wav_of_integers
from tests.support.recordings import Integers, quantised
from tests.support.reference import legacy_from_pydub, reference
from tussis.shared.coverage import Coverage
from tussis.shared.errors import AnswersInvalid, FileUnreadable
from tussis.worker.audit.against import Against, compare
from tussis.worker.audit.audit import Audit
from tussis.worker.audit.foreign import ForeignAnswer, read_answers
from tussis.worker.detector.detector import Detector

THRESHOLD = 0.61


def recordings(*seconds: float) -> dict[str, Integers]:
    return {
        f"{index}.wav": quantised(bursts(length, peak=0.05 * (index + 1), rumble=0.03, seed=index), 2)
        for index, length in enumerate(seconds)
    }


def old_backend(integers: Integers, model: Path, *, whole: bool = False) -> dict[str, Any]:
    """The old backend's response for a recording of one channel, from the plain reference and the model alone."""
    samples = legacy_from_pydub(integers[0], 2)[np.newaxis]
    detector = Detector.load(model, intra_op_threads=1)
    bags = [reference(samples, RATE, "legacy", bag) for bag in range(2 if whole else 1)]
    scores = [detector.score(bag.spectrograms, bag.segment_mask) for bag in bags]
    confidence = max(float(score.bag_probability[0]) for score in scores)
    segments = [float(p) for score in scores for p in score.segment_probabilities[0]]
    times = [pair for bag in bags for pair in zip(bag.start_s, bag.end_s, strict=True)]
    return {
        "coughDetected": confidence > THRESHOLD,
        "confidence": confidence,
        "file_probability": confidence,
        "segment_probabilities": segments,
        "segment_timestamps": times,
        "num_segments": len(segments),
        "threshold_used": THRESHOLD,
        "max_segment_probability": max(segments),
        "mean_segment_probability": sum(segments) / len(segments),
    }


def written(path: Path, answers: dict[str, dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps({"file": name, **answer}) + "\n" for name, answer in answers.items()))
    return path


def compared(model: Path, path: Path, made: dict[str, Integers]) -> tuple[Audit, Against]:
    plan = replace(plan_of(model), scored_coverage=Coverage.FULL)
    audit = audited(plan, {name: wav_of_integers(integers, 2) for name, integers in made.items()})
    answers = read_answers(path)
    return audit, compare(audit, answers, {answer.file: answer for answer in answers.answers if answer.file in made})


def test_the_old_backend_is_recognised(tiny_model: Path, tmp_path: Path) -> None:
    made = recordings(0.8, 2.3, 5.0)
    path = written(tmp_path / "old.jsonl", {name: old_backend(one, tiny_model) for name, one in made.items()})

    audit, found = compared(tiny_model, path, made)

    assert found.best is not None
    assert (found.best.profile, found.best.reproduces, found.alike) == ("legacy", True, True)
    assert found.best.shifts.largest < 1e-5
    assert found.best.segment_largest is not None
    assert found.best.segment_largest < 1e-5
    assert (found.best.same_count, found.best.counted, found.best.shifts.flips) == (3, 3, 0)
    assert {one.profile for one in found.candidates[2:]} == {"documented", "training"}
    assert all(not one.reproduces for one in found.candidates if one.profile != "legacy")
    assert (found.matched, found.compared, found.unmatched, found.inconsistent) == (3, 3, (), 0)
    gaps = [
        abs(one.own.probability - old_backend(made[one.source], tiny_model)["confidence"]) for one in audit.recordings
    ]
    assert found.changes.largest == pytest.approx(max(gaps), abs=1e-6)


@pytest.mark.parametrize("whole", [False, True])
def test_the_coverage_is_recognised(whole: bool, tiny_model: Path, tmp_path: Path) -> None:
    """The recording is loud in its second half only."""
    integers = quantised(np.concatenate([bursts(17, peak=0.01), bursts(8, peak=0.5, seed=1)], axis=1), 2)
    answer = old_backend(integers, tiny_model, whole=whole)
    path = written(tmp_path / "old.jsonl", {"long.wav": answer})

    audit, found = compared(tiny_model, path, {"long.wav": integers})

    assert found.best is not None
    assert (found.best.profile, found.best.coverage) == ("legacy", Coverage.FULL if whole else Coverage.HEAD)
    assert found.best.reproduces
    assert not found.alike
    # The answers of the audit keep the coverage of the plan.
    assert len(audit.recordings[0].own.segments) == 32


def test_answers_for_other_files_and_errors_are_counted(tiny_model: Path, tmp_path: Path) -> None:
    made = recordings(0.8)
    answers = {"0.wav": old_backend(made["0.wav"], tiny_model), "else.wav": {"confidence": 0.9}}
    answers["0.wav"]["coughDetected"] = not answers["0.wav"]["coughDetected"]
    path = written(tmp_path / "old.jsonl", answers | {"broken.wav": {"error": "500"}})

    _, found = compared(tiny_model, path, made)

    assert (found.matched, found.unmatched, found.unanswered, found.inconsistent) == (1, ("else.wav",), 1, 1)
    assert found.best is not None
    assert found.best.shifts.flips == 1


def test_only_the_needed_fields_are_needed(tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    path.write_text('{"file": "a.wav", "confidence": 0.5}\n\n{"file": "b.wav", "file_probability": 1, "x": {}}\n')

    answers = read_answers(path).answers

    assert answers[0] == ForeignAnswer("a.wav", 1, 0.5, None, None, None, {})
    assert answers[1].probability == 1.0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 is not JSON"),
        ("[]", "line 1 is not a JSON object"),
        ('{"confidence": 0.5}', 'line 1 has no "file"'),
        ('{"file": "a", "confidence": 50}', '50 in "confidence" is no number from 0 to 1'),
        ('{"file": "a", "confidence": true}', 'True in "confidence" is no number'),
        ('{"file": "a", "confidence": NaN}', "nan in"),
        ('{"file": "a", "confidence": 0.5, "coughDetected": "yes"}', "write true or false"),
        ('{"file": "a", "confidence": 0.5, "num_segments": 2.5}', "write a whole number"),
        ('{"file": "a", "confidence": 0.5, "segment_probabilities": 1}', "is no list"),
        ('{"file": "a", "confidence": 0.5, "segment_probabilities": [1], "segment_timestamps": [[0]]}', "no pair"),
        ('{"file": "a", "confidence": 0.5, "segment_probabilities": [1], "segment_timestamps": []}', "0 segment_time"),
        ('{"file": "a", "confidence": 0.5}\n{"file": "a", "confidence": 0.4}', "has an answer in line 1 too"),
        ('{"file": "a", "error": "x"}', "has no answers"),
        ("", "has no answers"),
    ],
)
def test_a_wrong_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    path.write_text(line)

    with pytest.raises(AnswersInvalid, match=message) as raised:
        read_answers(path)
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable, match="No such file"):
        read_answers(tmp_path / "none.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"file": "\xff"}')
    with pytest.raises(AnswersInvalid, match="not UTF-8"):
        read_answers(tmp_path / "latin.jsonl")
