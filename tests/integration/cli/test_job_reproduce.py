"""``tussis job ID --reproduce`` on real servers: the same, another, and what cannot be repeated."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from tests.support.deployment import Deployment
from tests.support.encoding import encoded
from tests.support.models import Tiny, write_tiny
from tests.support.recordings import cough_like
from tests.support.sounds import wav
from tests.support.store import execute, rows
from tussis.shared.coverage import Coverage
from tussis.shared.errors import JobUnknown, ModelRefused, NotReproducible
from tussis.shared.messages import Job
from tussis.shared.queues import Device
from tussis.shared.settings import load_settings
from tussis.worker.cli.export import export
from tussis.worker.cli.job import job as command
from tussis.worker.cli.results import results
from tussis.worker.detector.manifest import read_manifest
from tussis.worker.pipeline.child import ChildSetup, make_context
from tussis.worker.pipeline.context import WorkerContext
from tussis.worker.pipeline.process import process
from tussis.worker.status.rundir import RunDir


@pytest.fixture
def here(
    deployment: Deployment, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WorkerContext]:
    """The context of a child of a CPU worker, in this process."""
    for name, value in deployment.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TUSSIS_CONCURRENCY", "1")
    run_dir = RunDir(tmp_path / "run")
    run_dir.create("cpu@test")
    context = make_context(ChildSetup(load_settings(), Device.CPU, "cpu@test", tiny_model, 1, run_dir))
    yield context
    context.store.close()
    if context.jail is not None:
        context.jail.close()


@pytest.fixture
def analysed(deployment: Deployment, here: WorkerContext) -> Callable[..., Job]:
    """A function that enqueues a recording and runs the pipeline on it."""

    def analyse(key: str, data: bytes | None, **fields: object) -> Job:
        job = deployment.enqueue(key, data, **fields)
        process(job, here)
        deployment.ledger.close(job)
        return job

    return analyse


def reproduce(job: Job | str, *arguments: str) -> Result:
    job_id = job if isinstance(job, str) else job.job_id
    return CliRunner().invoke(command, [job_id, "--reproduce", *arguments])


def verdict(job: Job, *arguments: str, status: int) -> str:
    """The last line of the output."""
    done = reproduce(job, *arguments)
    assert done.exit_code == status, (done.output, done.exception)
    return done.output.splitlines()[-1]


def refused(job: Job | str, *arguments: str, error: type[Exception] = NotReproducible) -> str:
    done = reproduce(job, *arguments)
    assert isinstance(done.exception, error), (done.output, done.exception)
    assert "\n" not in str(done.exception)
    return str(done.exception)


def everything(deployment: Deployment) -> list[Any]:
    """Every row of the store with the transaction that wrote it, and every key of the broker."""
    tables = ("recordings", "models", "software", "analyses", "jobs", "attempts", "bags", "segments", "events")
    url = deployment.environment["TUSSIS_DATABASE_URL"]
    found: list[Any] = [rows(url, f"SELECT xmin::text, {name}::text FROM {name} ORDER BY 2") for name in tables]
    broker = deployment.ledger._client
    found += [(key, broker.dump(key)) for key in sorted(broker.keys("*"))]
    return found


def test_a_result_is_the_same_again_and_nothing_is_written(
    deployment: Deployment, analysed: Callable[..., Job], tiny_model: Path
) -> None:
    """Given results with each decoder and coverage, then the numbers are the same and no server has changed."""
    jobs = {
        "soundfile": analysed("a.wav", wav(3.2, seed=1)),
        "pyav": analysed("b.ogg", encoded(cough_like(3.2, 48_000, seed=2), 48_000, "ogg", "libopus")),
        "pydub": analysed("c.wav", wav(3.2, seed=3), profile="legacy"),
        "full": analysed("d.wav", wav(40, seed=4), coverage=Coverage.FULL),
    }
    before = everything(deployment)

    for name, job in jobs.items():
        assert verdict(job, status=0) == "same to 1e-6", name
    report = json.loads(reproduce(jobs["full"], "--json").output)

    assert everything(deployment) == before
    assert report["agreement"] == "same"
    assert report["model_path"] == str(tiny_model)
    assert report["model_sha256"] == read_manifest(tiny_model).sha256
    assert report["differences"] == []
    assert report["largest_difference"]["value"] <= 1e-6
    assert len(report["segments"]) == 80
    assert report["software"]["row"] == report["software"]["here"]
    stored = {name: deployment.analysis(job).software for name, job in jobs.items()}
    libraries = {name: used.decoder_library.split()[0] for name, used in stored.items() if used is not None}
    assert libraries == {"soundfile": "libsndfile", "pyav": "libavcodec", "pydub": "ffmpeg", "full": "libsndfile"}


def test_a_changed_row_shows(deployment: Deployment, analysed: Callable[..., Job]) -> None:
    job = analysed("a.wav", wav(3.2, seed=1))
    url = deployment.environment["TUSSIS_DATABASE_URL"]
    segment = "UPDATE segments SET probability = probability {} WHERE segment_index = 3"

    execute(url, segment.format("* 0.999 + 0.0002"))
    said = verdict(job, status=0)
    assert said.startswith("same decision, largest difference ")
    assert said.endswith(" in segment 3 (1.5 to 3.5 s) (the same versions and processor)")

    execute(url, segment.format("* 0.5 + 0.1"))
    said = verdict(job, status=1)
    assert said.startswith("DIFFERENT: segment 3 (1.5 to 3.5 s): 0.")

    execute(url, "UPDATE analyses SET bag_probability = threshold / 2, decision = false, peak_dbfs = -1.5, events = 7")
    report = json.loads(reproduce(job, "--json").output)
    assert report["agreement"] == "different"
    assert {each["name"] for each in report["differences"]} >= {"bag_probability", "decision", "peak_dbfs", "events"}
    assert "events: 7 in the row, " in report["verdict"]


def test_other_versions_are_named(deployment: Deployment, analysed: Callable[..., Job]) -> None:
    job = analysed("a.wav", wav(3.2, seed=1))
    url = deployment.environment["TUSSIS_DATABASE_URL"]
    (here,) = rows(url, "SELECT onnxruntime_version FROM software")

    execute(url, "UPDATE software SET onnxruntime_version = '1.22.0', graph = 'folded'")
    said = verdict(job, status=0)
    assert said == f"same to 1e-6 (other onnxruntime: {here[0]} here, 1.22.0 there; other graph: original here, " + (
        "folded there)"
    )
    execute(url, "UPDATE analyses SET software_id = NULL")
    assert verdict(job, status=0) == "same to 1e-6"
    execute(url, "UPDATE segments SET probability = probability * 0.999 + 0.0002 WHERE segment_index = 0")
    assert verdict(job, status=0).endswith("(the row does not name its versions)")


def test_without_segments_the_rest_is_compared(deployment: Deployment, analysed: Callable[..., Job]) -> None:
    job = analysed("a.wav", wav(3.2, seed=1))
    execute(deployment.environment["TUSSIS_DATABASE_URL"], "DELETE FROM segments")

    assert verdict(job, status=0) == "same to 1e-6 (without the segments, which `tussis retain` deleted)"


def test_a_changed_or_missing_object_is_one_line(deployment: Deployment, analysed: Callable[..., Job]) -> None:
    job = analysed("a.wav", wav(1.0, seed=1))

    deployment.bucket.put("a.wav", wav(1.0, seed=2))
    assert "has changed since the analysis of its content with the entity tag" in refused(job)
    deployment.bucket.client.delete_object(Bucket=deployment.bucket.name, Key="a.wav")
    assert "does not exist any more after the analysis" in refused(job)
    deployment.bucket.put("a.wav", wav(1.0, seed=1))
    assert verdict(job, status=0) == "same to 1e-6"


def test_a_failure_fails_again(deployment: Deployment, analysed: Callable[..., Job]) -> None:
    url = deployment.environment["TUSSIS_DATABASE_URL"]
    picture = analysed("a.png", b"\x89PNG\r\n\x1a\n" + bytes(100))
    missing = analysed("b.wav", None, etag="0" * 32)
    unknown = analysed("c.wav", wav(1.0), profile="nonsense")

    assert verdict(picture, status=0) == "same failure: not_audio"
    assert verdict(missing, status=0) == "same failure: object_missing"
    assert verdict(unknown, status=0) == "same failure: unknown_profile"
    used = deployment.analysis(picture).software
    assert used is not None
    assert used.decoder_library.startswith("libsndfile ")
    assert "libavcodec " in used.decoder_library

    execute(url, "UPDATE analyses SET error_class = 'corrupt' WHERE error_class = 'not_audio'")
    said = verdict(picture, status=1)
    assert said.startswith("DIFFERENT: the row has the failure corrupt, and here the analysis fails as not_audio: ")
    report = json.loads(reproduce(picture, "--json").output)
    assert (report["error"]["row"], report["error"]["here"]) == ("corrupt", "not_audio")

    execute(url, "UPDATE analyses SET error_class = 'worker_crashed' WHERE error_class = 'corrupt'")
    assert "depends on the workers and not on the recording" in refused(picture)

    job = analysed("d.wav", wav(1.0, seed=5))
    execute(
        url,
        "UPDATE analyses SET state = 'failed', error_class = 'corrupt', error_message = 'x', bag_probability = NULL, "
        "bag_logit = NULL, decision = NULL, segments = NULL, segments_total = NULL, analyzed_s = NULL, "
        "truncated = NULL WHERE state = 'succeeded'",
    )
    said = verdict(job, status=1)
    assert said.startswith("DIFFERENT: the row has the failure corrupt, and here the analysis succeeds (cough is ")


def test_a_result_that_now_fails_is_different(
    deployment: Deployment, analysed: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = analysed("a.wav", wav(3.2, seed=1))
    monkeypatch.setenv("TUSSIS_MAX_DURATION_S", "2")

    said = verdict(job, status=1)

    assert said.startswith("DIFFERENT: the row has a result, and here the analysis fails as too_long: ")


def test_the_model_is_found_by_its_hash(
    deployment: Deployment,
    analysed: Callable[..., Job],
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = analysed("a.wav", wav(1.0, seed=1))
    other = write_tiny(tmp_path, Tiny(logit_factor=2.0), name="other")

    assert "is other@1 with the sha256 " in refused(job, "--model", str(other))
    assert "no model file" in refused(job, "--model", str(tmp_path / "none.onnx"), error=ModelRefused)
    monkeypatch.setenv("TUSSIS_MODEL", str(other))
    monkeypatch.setenv("TUSSIS_MODEL_CACHE_DIR", str(tmp_path / "cache"))
    assert "give its file with --model" in refused(job)
    assert verdict(job, "--model", str(tiny_model), status=0) == "same to 1e-6"

    folder = tmp_path / "cache" / "models" / "0123"
    folder.mkdir(parents=True)
    for name in ("tiny.onnx", "tiny.json"):
        (folder / name).write_bytes(tiny_model.with_name(name).read_bytes())
    assert verdict(job, status=0) == "same to 1e-6"
    monkeypatch.setenv("TUSSIS_MODEL", str(tmp_path / "none.onnx"))
    assert verdict(job, status=0) == "same to 1e-6"


def test_an_open_or_unknown_job_is_one_line(deployment: Deployment, here: WorkerContext) -> None:
    job = deployment.enqueue("a.wav", wav(1.0))
    assert refused(job) == f"job {job.job_id} is open: wait for its result or failure"

    process(job, here)
    deployment.ledger.close(job)
    url = deployment.environment["TUSSIS_DATABASE_URL"]
    with psycopg.connect(url) as connection:
        connection.execute("DELETE FROM segments")
        connection.execute("DELETE FROM bags")
        connection.execute("DELETE FROM events")
        connection.execute(
            "UPDATE analyses SET state = 'waiting', bag_probability = NULL, bag_logit = NULL, decision = NULL, "
            "segments = NULL, segments_total = NULL, analyzed_s = NULL, truncated = NULL, finished_at = NULL"
        )
    assert refused(job) == f"job {job.job_id} is waiting: wait for its result or failure"
    execute(url, "DELETE FROM analyses")  # as `tussis retain` does
    assert "check the id" in refused(job, error=JobUnknown)


def test_the_option_model_needs_reproduce(deployment: Deployment) -> None:
    done = CliRunner().invoke(command, ["x", "--model", "a.onnx"])
    assert done.exit_code == 2
    assert "--model needs --reproduce" in done.output


def test_job_results_and_export_have_the_software(deployment: Deployment, analysed: Callable[..., Job]) -> None:
    """Every row names its software, and several results of the same software share one row of it."""
    job = analysed("a.wav", wav(1.0, seed=1))
    analysed("b.wav", wav(1.0, seed=2))

    shown = json.loads(CliRunner().invoke(command, [job.job_id, "--json"]).output)
    plain = CliRunner().invoke(command, [job.job_id]).output

    listed = json.loads(CliRunner().invoke(results, ["--json", "--job", job.job_id]).output)
    table = CliRunner().invoke(export, ["--format", "jsonl", "--out", "-"]).output.splitlines()

    assert listed["software"] == shown["software"]
    assert [json.loads(line)["decoder_library"] for line in table] == [shown["software"]["decoder_library"]] * 2
    url = deployment.environment["TUSSIS_DATABASE_URL"]
    assert rows(url, "SELECT count(*), count(DISTINCT software_id) FROM analyses") == [(2, 1)]
    assert rows(url, "SELECT count(*) FROM software") == [(1,)]
    assert shown["software"]["graph"] == "original"
    assert shown["software"]["provider"] == "cpu"
    assert f", onnxruntime {shown['software']['onnxruntime_version']}, torch " in plain
