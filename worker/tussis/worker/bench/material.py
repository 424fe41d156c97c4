"""The workloads of the benchmarks: recordings of 2, 10 and 60 seconds, and a mix of real or synthetic ones."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf

from tussis.shared.dsp.profiles import profile_named
from tussis.shared.errors import FileUnreadable, PermanentError
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.pipeline.prepare import cut_audio

#: The name of the mix when no real recordings are given.
SYNTHETIC_MIX = "mix (synthetic)"
MIX = "mix"
#: The names that ``--only`` takes.
NAMES = ("2s", "10s", "60s", MIX)

_PROFILE = profile_named("documented")
_LIMITS = Limits(max_bytes=100_000_000, max_duration_s=3600.0, min_rate_hz=4_000, max_rate_hz=192_000, max_channels=8)
#: The sample rate of the synthetic recordings, in Hz. They are 16-bit mono WAV.
RATE_HZ = 16_000


@dataclass(frozen=True, slots=True)
class Item:
    """One recording."""

    key: str
    data: bytes
    segments: int
    """The number of segments that the model scores: at most 32."""
    duration_s: float


@dataclass(frozen=True, slots=True)
class Workload:
    """Recordings that are measured together."""

    name: str
    items: tuple[Item, ...]

    @property
    def segments(self) -> list[int]:
        """The number of segments of each recording, in order."""
        return [item.segments for item in self.items]

    def line(self) -> str:
        """The workload as a line of text."""
        seconds = sum(item.duration_s for item in self.items)
        return f"{self.name}: {len(self.items)} recordings, {seconds:.0f} s of audio, {sum(self.segments)} segments"


def workloads(names: Sequence[str], segments: int, recordings: Path | None) -> list[Workload]:
    """The workloads, in the order of :data:`NAMES`.

    Args:
        names: which of :data:`NAMES`.
        segments: the approximate total number of segments in each. Each has at least two recordings.
        recordings: the source of the mix: a folder of recordings, or one with the pack's ``manifest.csv`` (then the
            train split of ``coughs/``). None: a synthetic mix.

    Raises :class:`FileUnreadable` when a file cannot be read, or the folder has fewer than two valid recordings.
    """
    made = []
    for name in NAMES:
        if name not in names:
            continue
        if name == MIX:
            made.append(_mix(segments, recordings))
        else:
            made.append(_synthetic(name, float(name.removesuffix("s")), segments))
    return made


def _synthetic(name: str, seconds: float, segments: int) -> Workload:
    first = _item(f"{name}/0.wav", wav(seconds, seed=0))
    count = max(2, segments // first.segments // 2 * 2)  # an even number, so that two processes end together
    return Workload(name, (first, *(_item(f"{name}/{seed}.wav", wav(seconds, seed)) for seed in range(1, count))))


def _mix(segments: int, folder: Path | None) -> Workload:
    items: list[Item] = []
    if folder is None:
        draw = random.Random(0)
        while sum(item.segments for item in items) < segments or len(items) < 2:
            # Like recordings of telephones and messengers: one to eight seconds, most of them short, MP3.
            seconds = min(8.0, 1.0 + draw.expovariate(1 / 1.6))
            rate = draw.choice((8_000, 48_000))
            items.append(_item(f"mix/{len(items)}.mp3", mp3(seconds, rate, seed=len(items))))
        return Workload(SYNTHETIC_MIX, tuple(items))
    for path in _files(folder):
        try:
            items.append(_item(f"mix/{path.name}", path.read_bytes()))
        except PermanentError:
            continue  # the pack's folder may contain files that are not recordings
        except OSError as error:
            raise FileUnreadable(f"cannot read {path}: {error.strerror}") from error
        if sum(item.segments for item in items) >= segments and len(items) >= 2:
            break
    if len(items) < 2:
        raise FileUnreadable(f"{folder} holds no two recordings that can be read: give another folder")
    return Workload(MIX, tuple(items))


def _files(folder: Path) -> list[Path]:
    """The files, in a shuffled order that is always the same."""
    manifest = folder / "manifest.csv"
    if manifest.is_file():
        with manifest.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        names = [row["path"] for row in rows if row["path"].startswith("coughs/") and row["split"] == "train"]
        files = [folder / name for name in sorted(names)]
    else:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
    random.Random(0).shuffle(files)
    return files


def _item(key: str, data: bytes) -> Item:
    audio = decode(data, _LIMITS, _PROFILE.decoder)
    cut = cut_audio(audio, _PROFILE)
    return Item(key, data, len(cut.start_s), audio.duration_s)


def wav(seconds: float, seed: int, rate_hz: int = RATE_HZ) -> bytes:
    """Seeded noise with bursts in it, 16-bit mono WAV."""
    return _encoded(_sound(seconds, rate_hz, seed), rate_hz, "WAV", "PCM_16")


def mp3(seconds: float, rate_hz: int, seed: int) -> bytes:
    """The same as MP3, mono."""
    return _encoded(_sound(seconds, rate_hz, seed), rate_hz, "MP3", "MPEG_LAYER_III")


def _sound(seconds: float, rate_hz: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    generator = np.random.default_rng(seed)
    count = round(seconds * rate_hz)
    time = np.arange(count) / rate_hz
    loud = 0.02 + 0.4 * np.exp(-8.0 * np.mod(time + generator.uniform(0, 1), 1.3))
    return np.clip(generator.normal(0.0, 0.3, count) * loud, -1.0, 1.0).astype(np.float32)


def _encoded(samples: np.ndarray[tuple[int], np.dtype[np.float32]], rate_hz: int, kind: str, subtype: str) -> bytes:
    stream = io.BytesIO()
    sf.write(stream, samples, rate_hz, format=kind, subtype=subtype)
    return stream.getvalue()
