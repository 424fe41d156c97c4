"""`tussis audit`: its outputs, its exit status, and its mistakes in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from tests.support.audits import bursts, wav_of
from tests.support.browser import chromium
from tests.support.processes import ROOT
from tussis.shared.errors import AnswersInvalid, FileUnreadable, LabelsInvalid, OutputUnwritable, TooFewRecordings
from tussis.worker.cli.audit import audit

EVIL = "<script>alert(1)</script>&\u202e.wav"


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A quiet recording, a loud one with an odd name, an 8-bit one, and a file without audio."""
    found = tmp_path / "audio"
    found.mkdir()
    (found / "quiet.wav").write_bytes(wav_of(bursts(2.6, peak=0.02)))
    (found / EVIL.replace("/", "")).write_bytes(wav_of(bursts(1.2, seed=1)))
    (found / "eight.wav").write_bytes(wav_of(bursts(3.0, seed=2), 1))
    (found / "broken.wav").write_bytes(b"no audio")
    return found


def ran(model: Path, *arguments: str | Path) -> Result:
    return CliRunner().invoke(audit, [*map(str, arguments), "--model", str(model)])


def told(model: Path, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    result = ran(model, *arguments, "--json")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout)


def test_one_object_has_all(tiny_model: Path, folder: Path) -> None:
    status, found = told(tiny_model, folder)

    assert status == 0
    assert (found["model"], found["profile"], found["threshold"]) == ("tiny@1", "documented", 0.61)
    assert [one["profile"] for one in found["comparisons"]] == ["training", "legacy"]
    assert [one["error"]["class"] for one in found["failures"]] == ["not_audio"]
    names = [Path(one["uri"]).name for one in found["recordings"]]
    assert sorted(names) == sorted(["quiet.wav", "eight.wav", EVIL.replace("/", "")])
    for one in found["recordings"]:
        for compared in one["profiles"].values():
            assert compared["shift"] == pytest.approx(compared["bag_probability"] - one["bag_probability"])
            assert compared["flips"] is (compared["decision"] != one["decision"])
            attribution = compared.get("attribution")
            assert (attribution is not None) == (abs(compared["shift"]) > 0.02 or compared["flips"])
    quiet = next(one for one in found["recordings"] if one["uri"].endswith("quiet.wav"))
    legacy = quiet["profiles"]["legacy"]["attribution"]
    assert (legacy["main"], legacy["cause"]) == ("normalise", "quiet")
    total = sum(effect["shift"] for effect in legacy["factors"].values()) + legacy["interaction"]
    assert total == pytest.approx(quiet["profiles"]["legacy"]["shift"])


def test_the_tables_say_the_same_in_words(tiny_model: Path, folder: Path) -> None:
    result = ran(tiny_model, folder)

    assert result.exit_code == 0
    assert "tiny@1, profile documented, coverage head, threshold 0.61: 3 recordings audited, 1 failed." in result.stdout
    assert "normalise: quiet, peak -34.0 dBFS" in result.stdout
    assert re.search(r"not_audio .* \S+/broken\.wav", result.stdout)
    assert "\u202e" not in result.stdout


def test_a_limit_gates(tiny_model: Path, folder: Path) -> None:
    _, free = told(tiny_model, folder, "--profiles", "legacy")
    largest = free["comparisons"][0]["largest"]

    status, kept = told(tiny_model, folder, "--profiles", "legacy", "--max-shift", str(largest + 1e-9))
    assert (status, kept["limits_exceeded"]) == (0, [])
    gated = ran(tiny_model, folder, "--profiles", "legacy", "--max-shift", str(largest - 1e-3), "--max-flips", "100%")
    assert gated.exit_code == 1
    assert gated.stderr.splitlines()[-1].startswith("tussis: profile legacy: the largest shift is ")


def test_the_models_own_profile_alone_compares_nothing(tiny_model: Path, folder: Path) -> None:
    status, found = told(tiny_model, folder, "--profiles", "documented", "--max-flips", "0", "--max-shift", "0")

    assert status == 0
    assert found["comparisons"] == []
    assert found["scored_variants"] == 3


def test_labels_and_another_system_are_compared(tiny_model: Path, folder: Path, tmp_path: Path) -> None:
    labels, answers = tmp_path / "labels.csv", tmp_path / "old.jsonl"
    labels.write_text("file,label\nquiet.wav,1\neight.wav,0\nelse.wav,1\n")
    _, plain = told(tiny_model, folder, "--profiles", "legacy")
    lines = [
        {"file": Path(one["uri"]).name, "confidence": one["profiles"]["legacy"]["bag_probability"]}
        for one in plain["recordings"]
    ]
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))

    status, found = told(tiny_model, folder, "--labels", labels, "--against", answers, "--max-flips", "0")

    assert found["against"]["best"] == {"profile": "legacy", "coverage": "head"}
    assert found["against"]["reproduced"] is True
    assert found["against"]["matched"] == 3
    assert (found["labels"]["recordings"], found["labels"]["coughs"], found["labels"]["unmatched"]) == (2, 1, 1)
    assert [one["profile"] for one in found["labels"]["profiles"]] == ["documented", "training", "legacy"]
    gates = {one["profile"]: one["flips"] for one in found["comparisons"]} | {"": found["against"]["changes"]["flips"]}
    assert status == (1 if any(gates.values()) else 0)
    printed = ran(tiny_model, folder, "--labels", labels, "--against", answers).stdout
    assert "legacy reproduces the other system: every probability is the same within 0.001." in printed
    assert "2 labelled recordings have an answer under every profile, 1 of them with a cough." in printed


def test_mistakes_are_reported_before_the_model_runs(tiny_model: Path, folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    (tmp_path / "none").mkdir()
    expected = {
        (folder, "--labels", empty): LabelsInvalid,
        (folder, "--against", empty): AnswersInvalid,
        (folder, "--against", tmp_path / "missing"): FileUnreadable,
        (folder, "--html", tmp_path / "missing" / "a.html"): OutputUnwritable,
        (tmp_path / "none",): TooFewRecordings,
        (folder / "broken.wav",): TooFewRecordings,
    }
    for arguments, error in expected.items():
        result = ran(tiny_model, *arguments)
        assert isinstance(result.exception, error), (arguments, result.exception)
        assert "\n" not in str(result.exception)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--profiles", "documented,none", "no preprocessing profile 'none'"),
        ("--max-flips", "many", "write for example 5 or 0.5%"),
        ("--max-shift", "2", "2.0 is not in the range"),
    ],
)
def test_wrong_options_are_wrong_usage(option: str, value: str, message: str, tiny_model: Path, folder: Path) -> None:
    result = ran(tiny_model, folder, option, value)

    assert result.exit_code == 2
    assert message in result.stderr


def test_the_page_opens_offline_on_a_phone(tiny_model: Path, folder: Path, tmp_path: Path) -> None:
    page, labels, answers = tmp_path / "audit.html", tmp_path / "labels.csv", tmp_path / "old.jsonl"
    labels.write_text("file,label\nquiet.wav,1\neight.wav,0\n")
    answers.write_text('{"file": "quiet.wav", "confidence": 0.4, "threshold_used": 0.5, "coughDetected": true}\n')
    options = ("--labels", labels, "--against", answers, "--attribute-above", "0", "--max-shift", "0")

    result = ran(tiny_model, folder, "--html", page, *options)

    assert result.exit_code == 1
    content = page.read_text(encoding="utf-8")
    assert "<script>alert" not in content
    for heading in ("Profiles", "Factors", "Labels", "The other system", "Worst recordings", "Failures"):
        assert f"<h2>{heading}</h2>" in content
    with chromium() as browser:
        for width in (360, 1_100):
            browser.open(page, width=width, dark=width < 1_000)
            assert browser.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
            assert browser.requests() == [page.as_uri()]
            assert browser.complaints() == []


def test_the_document_names_every_field_and_option(tiny_model: Path, folder: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    labels, answers = tmp_path / "labels.csv", tmp_path / "old.jsonl"
    labels.write_text("file,label\nquiet.wav,1\neight.wav,0\n")
    answers.write_text('{"file": "quiet.wav", "confidence": 0.4}\n')
    _, found = told(tiny_model, folder, "--labels", labels, "--against", answers, "--attribute-above", "0")

    missing = {key for key in keys_of(found) if f"`{key}`" not in text}
    options = {option for parameter in audit.params for option in parameter.opts if option.startswith("--")}
    assert missing == set()
    assert {option for option in options if option not in text} == set()


def keys_of(value: object) -> set[str]:
    """All keys of objects in a JSON value, without the names of profiles, factors and error classes."""
    if isinstance(value, list):
        return {key for one in value for key in keys_of(one)}
    if not isinstance(value, dict):
        return set()
    named = {"training", "legacy", "documented", "decoder", "normalise", "high-pass", "tail", "precision"}
    return {key for key in value if key not in named} | {key for one in value.values() for key in keys_of(one)}
