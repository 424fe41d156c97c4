"""``tussis report`` on a store and a bucket."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.deployment import Deployment
from tests.support.sounds import wav
from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, model_facts
from tussis.producer.cli import root
from tussis.shared.store.records import ModelFacts

Report = Callable[..., Result]


@pytest.fixture
def model(deployment: Deployment) -> ModelFacts:
    facts = model_facts()
    deployment.store.register_model(facts)
    return facts


@pytest.fixture
def report(deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    """Runs ``tussis report`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(root, ["report", *words], env=deployment.environment)


def analysed(deployment: Deployment, model: ModelFacts, key: str, data: bytes, probability: float = 0.9) -> int:
    """Store an object, and an analysis of it by an imagined worker. Returns its id."""
    deployment.bucket.put(key, data)
    etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
    job = a_job(bucket=deployment.bucket.name, key=key, etag=etag, metadata={"site": "<i>north</i>"})
    claim = claimed(deployment.store.claim(a_claim(job, model, etag=etag)))
    deployment.store.complete(claim, a_result(7, probability, warnings=("clipped",)))
    return claim.analysis_id


def test_a_report_of_a_uri(deployment: Deployment, model: ModelFacts, report: Report) -> None:
    number = analysed(deployment, model, "a.wav", wav(3.5))

    done = report(deployment.bucket.uri("a.wav"))

    assert done.exit_code == 0, done.output
    assert done.stdout == f"report-{number}.html\n"
    page = Path(f"report-{number}.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "data:audio/wav;base64," in page
    assert "data:image/png;base64," in page
    assert 'class="wave seek"' in page
    assert page.count('class="fill-event"') == 1  # the stored event of a_result
    assert "&lt;i&gt;north&lt;/i&gt;" in page
    assert "samples were cut off at full scale" in page
    assert "cough@1" in page


def test_the_newest_analysis_of_a_uri_and_any_by_id(deployment: Deployment, model: ModelFacts, report: Report) -> None:
    first = analysed(deployment, model, "a.wav", wav(1.0), 0.9)
    second = analysed(deployment, model, "a.wav", wav(1.0, seed=1), 0.3)

    assert report(deployment.bucket.uri("a.wav"), "--out", "newest.html").exit_code == 0
    assert "<h1>No cough</h1>" in Path("newest.html").read_text(encoding="utf-8")
    done = report(str(first), "--out", "first.html", "--png", "first.png")
    assert done.exit_code == 0
    # The object has been replaced, so the first analysis has no pictures of the sound.
    assert "no pictures of the sound: object_changed" in done.stderr
    page = Path("first.html").read_text(encoding="utf-8")
    assert '<h1 class="cough">Cough</h1>' in page
    assert "The recording is not available. object_changed" in page
    assert "<audio" not in page
    assert 'class="scores"' in page
    assert f'<td class="number">{second}</td>' in page
    assert Path("first.png").read_bytes().startswith(b"\x89PNG")


def test_a_missing_object(deployment: Deployment, model: ModelFacts, report: Report) -> None:
    number = analysed(deployment, model, "a.wav", wav(1.0))
    deployment.bucket.client.delete_object(Bucket=deployment.bucket.name, Key="a.wav")

    done = report(str(number), "--out", "a.html")

    assert done.exit_code == 0
    assert "object_missing" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "The recording is not available. object_missing" in Path("a.html").read_text(encoding="utf-8")


def test_a_failure_without_an_object(deployment: Deployment, report: Report) -> None:
    deployment.store.refuse(a_refusal(a_job(key="gone.wav")))

    done = report("s3://recordings/gone.wav", "--out", "gone.html", "--png", "gone.png")

    assert done.exit_code == 0, done.output
    page = Path("gone.html").read_text(encoding="utf-8")
    assert "<h1>Failed</h1>" in page
    assert "object_missing: no object at s3://recordings/gone.wav" in page


def test_no_audio_and_only_a_picture(deployment: Deployment, model: ModelFacts, report: Report) -> None:
    number = analysed(deployment, model, "a.wav", wav(3.5))

    assert report(str(number), "--no-audio", "--out", "a.html").exit_code == 0
    page = Path("a.html").read_text(encoding="utf-8")
    assert "The recording is not part of this report (--no-audio)." in page
    assert "<audio" not in page
    assert 'class="mel"' in page
    assert report(str(number), "--png", "a.png").stdout == "a.png\n"
    assert not list(Path.cwd().glob("report-*.html"))


def test_a_recording_that_is_too_long_for_the_player(
    deployment: Deployment, model: ModelFacts, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tussis.worker.report.listening.MAX_PLAYER_S", 3.0)
    number = analysed(deployment, model, "a.wav", wav(3.5))

    assert report(str(number), "--out", "a.html").exit_code == 0
    assert "it has 4 s, and at most 3 s are embedded" in Path("a.html").read_text(encoding="utf-8")


def test_a_batch_with_labels(deployment: Deployment, model: ModelFacts, report: Report) -> None:
    for name, probability in (("a", 0.9), ("b", 0.2), ("c", 0.7)):
        analysed(deployment, model, f"ward/{name}.wav", wav(1.0), probability)
    deployment.store.refuse(a_refusal(a_job(bucket=deployment.bucket.name, key="ward/d.wav")))
    analysed(deployment, model, "home/e.wav", wav(1.0))
    prefix = deployment.bucket.uri("ward/")
    Path("labels.csv").write_text(
        f"uri,label\n{prefix}a.wav,cough\n{prefix}b.wav,no-cough\n{prefix}c.wav,no-cough\n{prefix}d.wav,1\n"
    )

    done = report("--batch", "--prefix", prefix, "--labels", "labels.csv", "--out", "all.html")

    assert done.exit_code == 0, done.output
    assert done.stdout == "all.html\n"
    page = Path("all.html").read_text(encoding="utf-8")
    assert "<h1>4 analyses</h1>" in page
    assert f"Filters: prefix {prefix}." in page
    assert "3 labelled recordings with a result: 1 with a cough, 2 without. 1 label without a result" in page
    assert "2 of 3 decisions agree with the label (66.7%)" in page
    assert "Area under the curve: 1.000" in page
    assert "object_missing" in page
    assert page.count("<td>clipped</td>") == 1
    assert report("--batch", "--decision", "no-cough").stdout == "report.html\n"
    assert "<h1>1 analysis</h1>" in Path("report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([], 2, "give the URI of a recording or the id of an analysis, or --batch"),
        (["a.wav"], 2, "'a.wav' is neither a URI"),
        (["9" * 30], 2, "is neither a URI"),
        (["1", "--prefix", "s3://clinic/"], 2, "filters and --labels need --batch"),
        (["1", "--labels", "x.csv"], 2, "filters and --labels need --batch"),
        (["1", "--out", "a.html", "--png", "a.html"], 2, "--out and --png name the same file"),
        (["1", "--batch"], 2, "--batch takes filters"),
        (["--batch", "--png", "x.png"], 2, "--batch takes filters"),
        (["77"], 1, "no analysis has the id 77"),
        (["s3://clinic/a.wav"], 1, "no analysis of 's3://clinic/a.wav'"),
        (["s3://clinic"], 1, "no key in"),
        (["--batch", "--labels", "none.csv"], 1, "cannot read none.csv"),
        (["--batch", "--out", "none/a.html"], 1, "there is no folder none"),
        (["--batch", "--prefix", "clinic/"], 1, "not an S3 URI"),
    ],
)
def test_a_wrong_call_is_one_line(report: Report, words: list[str], status: int, message: str) -> None:
    done = report(*words)

    assert done.exit_code == status
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert not list(Path.cwd().glob("*.html"))


def test_the_labels_are_not_overwritten(deployment: Deployment, report: Report) -> None:
    Path("labels.csv").write_text("uri,label\ns3://clinic/a.wav,1\n")

    done = report("--batch", "--labels", "labels.csv", "--out", "./labels.csv")

    assert done.exit_code == 1
    assert "it is the file of labels" in done.stderr
    assert Path("labels.csv").read_text().startswith("uri,label")
