"""The demo's recordings: made the same every time, in formats that decode, and found in folders."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from tussis.shared.dsp.profiles import profile_named
from tussis.shared.errors import FileUnreadable
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.demo.encoding import Format, encode
from tussis.worker.demo.recipes import Recipe, recipes
from tussis.worker.demo.recordings import DemoRecording, found_in, synthesised
from tussis.worker.detector.detector import Detector
from tussis.worker.detector.shipped import default_model
from tussis.worker.pipeline.prepare import prepare

LIMITS = Limits(max_bytes=10_000_000, max_duration_s=60, min_rate_hz=4_000, max_rate_hz=192_000, max_channels=8)
ALL = recipes(24)
#: What a lossy codec may add at the ends, seconds: its frames, and the filter's delay.
PADDING_S = 0.15


@pytest.mark.parametrize("recipe", ALL, ids=lambda recipe: recipe.name)
def test_a_recipe_gives_the_same_samples_every_time(recipe: Recipe) -> None:
    samples = recipe.samples()

    assert samples.dtype == np.float32
    assert samples.shape == (recipe.channels, int(recipe.duration_s * recipe.rate_hz))
    assert samples.tobytes() == recipe.samples().tobytes()
    assert np.isfinite(samples).all()
    assert 0.005 < np.abs(samples).max() <= 0.8


@pytest.mark.parametrize("recipe", ALL, ids=lambda recipe: recipe.name)
def test_its_file_decodes_to_what_was_written(recipe: Recipe) -> None:
    samples = recipe.samples()

    audio = decode(encode(samples, recipe.rate_hz, recipe.format), LIMITS)

    # Opus is always 48 kHz inside, whatever it was made from.
    rate_hz = 48_000 if recipe.format in (Format.OPUS, Format.WEBM) else recipe.rate_hz
    assert (audio.rate_hz, audio.channels) == (rate_hz, recipe.channels)
    assert recipe.duration_s - 0.01 <= audio.duration_s <= recipe.duration_s + PADDING_S
    level = np.sqrt(np.mean(samples**2)) * np.sqrt(recipe.duration_s / audio.duration_s)
    assert np.sqrt(np.mean(audio.samples**2)) == pytest.approx(level, rel=0.15)


def test_the_set_is_mixed() -> None:
    assert len({recipe.name for recipe in ALL}) == 24
    assert sum(1 for recipe in ALL if recipe.coughs) == 12
    assert {recipe.format for recipe in ALL} == set(Format)
    assert {recipe.rate_hz for recipe in ALL} >= {8_000, 16_000, 44_100, 48_000}
    assert {recipe.channels for recipe in ALL} == {1, 2}
    lengths = [recipe.duration_s for recipe in ALL]
    assert (min(lengths), max(lengths)) == (0.3, 20.0)


def test_more_than_the_set_are_other_recordings_of_the_same_kinds() -> None:
    more = recipes(48)

    first, same_kind = more[0], more[24]
    assert (same_kind.name, same_kind.number) == (first.name, 25)
    assert same_kind.samples().tobytes() != first.samples().tobytes()
    assert len({recipe.file_name for recipe in more}) == 48


def test_a_cough_is_a_short_loud_burst_where_the_recipe_has_it() -> None:
    late = next(recipe for recipe in ALL if recipe.name == "late-coughs")
    samples = late.samples()[0]

    before = samples[: int((late.first_s - 0.1) * late.rate_hz)]
    after = samples[int(late.first_s * late.rate_hz) :]

    assert np.abs(after).max() > 30 * np.abs(before).max()


def test_the_model_that_ships_tells_them_apart() -> None:
    model = default_model()
    if model is None:
        pytest.skip("no model ships with this checkout")
    detector = Detector.load(model, intra_op_threads=1)
    profile = profile_named(detector.manifest.profile)
    found = {}
    for recipe in ALL:
        prepared = prepare(encode(recipe.samples(), recipe.rate_hz, recipe.format), profile, LIMITS)
        scores = detector.score(prepared.spectrograms, prepared.segment_mask)
        found[recipe.name] = float(scores.bag_probability[0]) > detector.manifest.threshold

    wrong = [recipe.name for recipe in ALL if found[recipe.name] != bool(recipe.coughs)]

    # One may be on the wrong side on another machine, or with another model; more make a poor demonstration.
    assert len(wrong) <= 2, wrong


def test_recordings_are_made_once(tmp_path: Path) -> None:
    made = synthesised(tmp_path / "made", 3)
    stamps = [recording.path.stat().st_mtime_ns for recording in made]
    made[1].path.unlink()

    again = synthesised(tmp_path / "made", 3)

    assert again == made
    assert [recording.key for recording in made] == [f"synthetic/{path.name}" for path in sorted(tmp_path.rglob("*.*"))]
    assert [r.path.stat().st_mtime_ns == stamp for r, stamp in zip(again, stamps, strict=True)] == [True, False, True]


def test_a_folder_gives_its_audio_files_at_any_depth(tmp_path: Path) -> None:
    folder = tmp_path / "clinic"
    for name in ("b.WAV", "a/x.mp3", "a/notes.txt", ".hidden.wav", ".git/y.wav", "c.webm"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (folder / "folder.wav").mkdir()

    found = found_in(folder, None)

    assert found.skipped == ()
    assert [recording.key for recording in found.recordings] == ["clinic/a/x.mp3", "clinic/b.WAV", "clinic/c.webm"]
    assert found_in(folder, 2).recordings == found.recordings[:2]
    assert found.recordings[0] == DemoRecording(folder / "a" / "x.mp3", "clinic/a/x.mp3")


def test_a_folder_by_a_relative_name_gives_its_real_one_to_the_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clinic").mkdir()
    (tmp_path / "clinic" / "a.wav").write_bytes(b"")
    monkeypatch.chdir(tmp_path / "clinic")

    assert [recording.key for recording in found_in(Path("."), None).recordings] == ["clinic/a.wav"]


def test_a_name_that_is_not_utf8_and_one_that_is_too_long_for_a_key(tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    Path(odd).write_bytes(b"")
    deep = tmp_path
    for _ in range(6):
        deep = deep / ("d" * 200)
        deep.mkdir()
    (deep / "a.wav").write_bytes(b"")

    found = found_in(tmp_path, None)

    assert [recording.key for recording in found.recordings] == [f"{tmp_path.name}/caf\ufffd.wav"]
    (skipped,) = found.skipped
    assert skipped.path == deep / "a.wav"
    assert re.match("the key has [0-9]+ bytes of UTF-8: 1 to 1024 are allowed", skipped.reason)


def test_a_folder_without_audio_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(FileUnreadable, match=r"^no audio file in .*: no name ends in \.wav, "):
        found_in(tmp_path, None)
    with pytest.raises(FileUnreadable, match="is not a folder"):
        found_in(tmp_path / "notes.txt", None)
