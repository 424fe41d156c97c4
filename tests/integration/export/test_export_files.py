"""``tussis export`` to labels and clips, with recordings in the object store."""

from __future__ import annotations

import csv
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result

from tests.support.encoding import encoded, interleaved, muxed, wav
from tests.support.servers import Bucket
from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, label, model_facts, rows
from tussis.producer.cli import root
from tussis.shared.events import CoughEvent
from tussis.shared.store.records import ModelFacts, ResultFilter
from tussis.shared.store.repository import Store
from tussis.worker.audio.limits import Limits
from tussis.worker.embedded.servers import Servers
from tussis.worker.export import clips as clips_module
from tussis.worker.export.clips import Extraction, write_clips
from tussis.worker.pipeline.objects import fetch

Run = Callable[..., Result]
RATE = 8_000
EVENTS = (CoughEvent(0.0, 0.5, 0.875, 0.75, 1), CoughEvent(1.5, 3.0, 0.99999, 0.5, 3))


@pytest.fixture
def run(store_url: str, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``tussis export``."""
    for name, value in (servers.endpoints.environment() | {"TUSSIS_DATABASE_URL": store_url}).items():
        monkeypatch.setenv(name, value)
    return lambda *words: CliRunner().invoke(root, ["export", *map(str, words)])


def noise(seconds: float, channels: int = 1, rate: int = RATE) -> npt.NDArray[np.int16]:
    """(channels, n) random 16-bit samples."""
    return np.random.default_rng(7).integers(-30_000, 30_000, (channels, round(seconds * rate)), dtype=np.int16)


def analysed(store: Store, model: ModelFacts, bucket: Bucket, key: str, data: bytes | None, **changes: Any) -> int:
    """Store an object and a result for it with :data:`EVENTS`; returns the id of the analysis. None: no object."""
    etag = "e1"
    if data is not None:
        bucket.put(key, data)
        etag = bucket.client.head_object(Bucket=bucket.name, Key=key)["ETag"].strip('"')
    claim = a_claim(
        a_job(bucket=bucket.name, key=key, model=label(model)),
        model,
        etag=etag,
        size_bytes=None if data is None else len(data),
    )
    held = claimed(store.claim(claim))
    size = {} if data is None else {"size_bytes": len(data)}
    assert store.complete(held, a_result(4, 0.9, **({"events": EVENTS, "rate_hz": RATE} | size | changes)))
    return held.analysis_id


def sound(path: Path) -> tuple[int, npt.NDArray[np.int16]]:
    """The rate, and the (channels, n) samples, of a clip."""
    with wave.open(str(path)) as clip:
        assert clip.getsampwidth() == 2
        samples = np.frombuffer(clip.readframes(clip.getnframes()), "<i2").reshape(-1, clip.getnchannels())
        return clip.getframerate(), samples.T


def index(folder: Path) -> list[dict[str, str]]:
    """The lines of the index of clips."""
    with (folder / "index.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


# --- labels -----------------------------------------------------------------------------------------------


def test_audacity_has_a_label_file_for_each_analysis_with_events(
    store: Store, model: ModelFacts, bucket: Bucket, run: Run, tmp_path: Path
) -> None:
    analysed(store, model, bucket, "ward/1.wav", None)
    analysed(store, model_facts(version="2", sha256="b" * 64), bucket, "ward/1.wav", None)
    analysed(store, model, bucket, "quiet.wav", None, events=())
    store.refuse(a_refusal(a_job(bucket=bucket.name, key="missing.wav")))

    result = run("--format", "audacity", "--out", tmp_path / "labels")

    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'labels'}: 4 cough events in 2 files\n")
    assert {file.name for file in (tmp_path / "labels").iterdir()} == {
        "ward_1.wav-1.labels.txt",
        "ward_1.wav-2.labels.txt",
    }
    assert (tmp_path / "labels" / "ward_1.wav-1.labels.txt").read_text() == (
        "0.000000\t0.500000\tcough event 0.875\n1.500000\t3.000000\tcough event >0.999\n"
    )


def test_newest_gives_one_label_file_a_recording(
    store: Store, model: ModelFacts, bucket: Bucket, run: Run, tmp_path: Path
) -> None:
    analysed(store, model, bucket, "a.wav", None)
    newest = analysed(store, model_facts(version="2", sha256="b" * 64), bucket, "a.wav", None)

    run("--format", "audacity", "--newest", "--out", tmp_path / "labels")

    assert [file.name for file in (tmp_path / "labels").iterdir()] == [f"a.wav-{newest}.labels.txt"]


def test_raven_has_the_columns_of_birdnet_analyzer(
    store: Store, model: ModelFacts, bucket: Bucket, run: Run, tmp_path: Path
) -> None:
    analysed(store, model, bucket, "ward\t1/a.wav", None)
    analysed(store, model, bucket, "low.wav", None, rate_hz=4_000)

    result = run("--format", "raven", "--out", tmp_path)

    assert result.exit_code == 0, result.output
    assert (tmp_path / "ward_1_a.wav-1.selections.txt").read_text() == (
        "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tCommon Name\t"
        "Species Code\tConfidence\tBegin Path\tFile Offset (s)\n"
        "1\tSpectrogram 1\t1\t0.0\t0.5\t50\t4000\tCough event\tcough\t0.875\tward\\t1/a.wav\t0.0\n"
        "2\tSpectrogram 1\t1\t1.5\t3.0\t50\t4000\tCough event\tcough\t0.99999\tward\\t1/a.wav\t1.5\n"
    )
    assert "\t50\t2000\t" in (tmp_path / "low.wav-2.selections.txt").read_text()


@pytest.mark.parametrize("words", [("--format", "audacity", "--out"), ("--format", "raven", "--out"), ("--clips",)])
def test_a_folder_with_files_is_refused(store: Store, run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "mine.txt").write_text("before")

    result = run(*words, tmp_path)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"tussis: cannot write to the folder {tmp_path}: it is not empty; name a new one\n"
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


# --- clips ------------------------------------------------------------------------------------------------


def test_clips_are_the_samples_around_each_event(
    store: Store, model: ModelFacts, bucket: Bucket, run: Run, tmp_path: Path
) -> None:
    samples = noise(3.2, channels=2)
    analysed(store, model, bucket, "ward/1.wav", wav(interleaved(samples), channels=2, rate_hz=RATE))

    result = run("--clips", tmp_path / "clips", "--padding", "0.25")

    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'clips'}: 2 clips from 1 recordings\n")
    first, second = index(tmp_path / "clips")
    assert first == {
        "uri": bucket.uri("ward/1.wav"),
        "analysis_id": "1",
        "event_index": "0",
        "start_s": "0.0",
        "end_s": "0.5",
        "peak": "0.875",
        "clip_start_s": "0.0",
        "clip": "ward_1.wav-1_0.wav",
    }
    assert (second["clip_start_s"], second["clip"]) == ("1.25", "ward_1.wav-1_1.wav")
    rate, clip = sound(tmp_path / "clips" / first["clip"])
    assert rate == RATE
    np.testing.assert_array_equal(clip, samples[:, : round(0.75 * RATE)])
    np.testing.assert_array_equal(sound(tmp_path / "clips" / second["clip"])[1], samples[:, round(1.25 * RATE) :])
    assert {file.name for file in (tmp_path / "clips").iterdir()} == {first["clip"], second["clip"], "index.csv"}


def test_half_a_second_around_an_event_by_default_and_a_table_beside_the_clips(
    store: Store, model: ModelFacts, bucket: Bucket, run: Run, tmp_path: Path
) -> None:
    analysed(store, model, bucket, "a.wav", wav(interleaved(noise(5)), rate_hz=RATE))

    result = run("--format", "csv", "--rows", "events", "--out", tmp_path / "out.csv", "--clips", tmp_path / "clips")

    assert result.exit_code == 0, result.output
    assert [line["clip_start_s"] for line in index(tmp_path / "clips")] == ["0.0", "1.0"]
    assert sound(tmp_path / "clips" / "a.wav-1_1.wav")[1].shape == (1, 2.5 * RATE)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3


def test_clips_of_a_compressed_recording_keep_its_rate_and_channels(
    store: Store, model: ModelFacts, bucket: Bucket, run: Run, tmp_path: Path
) -> None:
    data = encoded(noise(4, 2, 44_100).astype(np.float32) / np.float32(2**16), 44_100, "mp4", "aac")
    analysed(store, model, bucket, "a.m4a", data, rate_hz=44_100)

    assert run("--clips", tmp_path / "clips").exit_code == 0

    rate, clip = sound(tmp_path / "clips" / "a.m4a-1_0.wav")
    assert (rate, clip.shape) == (44_100, (2, 44_100))


def test_clips_are_of_the_second_track_where_the_first_is_silent(
    store: Store, model: ModelFacts, bucket: Bucket, run: Run, tmp_path: Path
) -> None:
    loud = noise(4).astype(np.float32) / np.float32(2**16)
    data = muxed(tmp_path / "two.mka", RATE, (np.zeros_like(loud), "flac"), (loud, "flac"))
    analysed(store, model, bucket, "two.mka", data)

    assert run("--clips", tmp_path / "clips").exit_code == 0

    assert np.abs(sound(tmp_path / "clips" / "two.mka-1_0.wav")[1]).max() > 10_000
    assert len(list((tmp_path / "clips").iterdir())) == 3


def test_a_long_recording_keeps_its_rate_and_channels(
    store: Store, model: ModelFacts, bucket: Bucket, tmp_path: Path
) -> None:
    """Its samples are mixed and resampled while they are decoded. The clips are not."""
    samples = noise(4, channels=2)
    analysed(store, model, bucket, "a.wav", wav(interleaved(samples), channels=2, rate_hz=RATE))
    extraction = Extraction(bucket.client, Limits(whole_bytes=RATE), 0.0, 60.0, True)

    write_clips(tmp_path, list(store.events_to_extract(ResultFilter())), extraction, pytest.fail)

    np.testing.assert_array_equal(sound(tmp_path / "a.wav-1_1.wav")[1], samples[:, round(1.5 * RATE) : round(3 * RATE)])


def test_missing_changed_and_damaged_objects_are_told_and_counted(
    store: Store, model: ModelFacts, bucket: Bucket, run: Run, tmp_path: Path
) -> None:
    recording = wav(interleaved(noise(4)), rate_hz=RATE)
    analysed(store, model, bucket, "good.wav", recording)
    analysed(store, model, bucket, "gone.wav", recording)
    analysed(store, model, bucket, "changed.wav", recording)
    analysed(store, model, bucket, "text.wav", b"not a recording\n" * 99)
    analysed(store, model, bucket, "short.wav", wav(interleaved(noise(1)), rate_hz=RATE))
    bucket.client.delete_object(Bucket=bucket.name, Key="gone.wav")
    bucket.put("changed.wav", recording + b"\0\0")

    result = run("--clips", tmp_path / "clips")

    assert result.exit_code == 1
    assert result.stdout == f"{tmp_path / 'clips'}: 2 clips from 1 recordings; 4 failed\n"
    told = [line.split(": ")[1:3] for line in result.stderr.splitlines()]
    assert told == [
        [bucket.uri("short.wav"), "corrupt"],
        [bucket.uri("text.wav"), "not_audio"],
        [bucket.uri("changed.wav"), "object_changed"],
        [bucket.uri("gone.wav"), "object_missing"],
    ]
    assert [line["clip"] for line in index(tmp_path / "clips")] == ["good.wav-1_0.wav", "good.wav-1_1.wav"]
    assert len(list((tmp_path / "clips").iterdir())) == 3


@pytest.mark.parametrize("key", ["../../escape.wav", "/etc/x", "a/../../b", "..", "~/x", ".\\..\\x", "-rf *\n\x1b[2J"])
def test_no_key_leads_out_of_the_folder(
    store: Store, model: ModelFacts, bucket: Bucket, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """The object store of the tests refuses some of these keys, so its answer is replaced."""
    monkeypatch.setattr(clips_module, "fetch", lambda *_, **__: wav(interleaved(noise(4)), rate_hz=RATE))
    analysed(store, model, bucket, key, None)
    inside = tmp_path / "deep" / "folder"
    inside.parent.mkdir()

    results = [
        run("--clips", inside),
        *(run("--format", name, "--out", inside.parent / name) for name in ("audacity", "raven")),
    ]

    assert [result.exit_code for result in results] == [0, 0, 0]
    assert {path.name for path in tmp_path.iterdir()} == {"deep"}
    assert {path.name for path in inside.parent.iterdir()} == {"folder", "audacity", "raven"}
    assert len(list(inside.iterdir())) == 3


def test_no_transaction_is_open_while_recordings_are_fetched(
    store: Store,
    store_url: str,
    model: ModelFacts,
    bucket: Bucket,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Hours of an open transaction would keep old rows from being removed."""
    for number in range(3):
        analysed(store, model, bucket, f"{number}.wav", wav(interleaved(noise(4)), rate_hz=RATE))
    states: list[str] = []

    def observed(*values: Any, **options: Any) -> bytes:
        query = "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        states.extend(state for (state,) in rows(store_url, query))
        return fetch(*values, **options)

    monkeypatch.setattr(clips_module, "fetch", observed)

    assert run("--clips", tmp_path / "clips").exit_code == 0
    assert len(states) >= 3
    assert set(states) == {"idle"}


def test_an_object_store_that_does_not_answer_ends_the_export(
    store: Store, model: ModelFacts, bucket: Bucket, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        analysed(store, model, bucket, f"{number}.wav", None)
    monkeypatch.setenv("TUSSIS_S3_ENDPOINT_URL", "http://127.0.0.1:9")

    result = run("--clips", tmp_path / "clips")

    assert (result.exit_code, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert [line.startswith(f"tussis: {bucket.uri('')}") for line in lines] == [True, True, False]
    assert lines[2].startswith("tussis: the object store does not answer for s3://")
    assert list((tmp_path / "clips").iterdir()) == []
