"""The recordings of the demo: synthetic, or found in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tussis.shared.errors import FileUnreadable, InvalidUri
from tussis.shared.uris import check_key
from tussis.worker.local.surroundings import write_whole, writing

#: Suffixes of audio files. The worker finds the container in the bytes, not in the name.
AUDIO_SUFFIXES: Final = frozenset(
    {
        *(".3g2", ".3gp", ".m4a", ".m4b", ".mov", ".mp4", ".mka", ".mkv", ".webm"),
        *(".aac", ".amr", ".gsm", ".mp2", ".mp3", ".wma", ".oga", ".ogg", ".opus", ".spx"),
        *(".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".rf64", ".snd", ".w64", ".wav", ".wave"),
    }
)

_SYNTHETIC_PREFIX: Final = "synthetic/"


@dataclass(frozen=True)
class DemoRecording:
    """A file and its key in the bucket."""

    path: Path
    key: str


@dataclass(frozen=True)
class Skipped:
    """A file that cannot be uploaded, and the reason."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Found:
    """The recordings found in a folder, and the files skipped."""

    recordings: tuple[DemoRecording, ...]
    skipped: tuple[Skipped, ...]


def synthesised(folder: Path, count: int) -> tuple[DemoRecording, ...]:
    """Write ``count`` synthetic recordings into ``folder``; keep those that exist. Raises as :func:`writing`."""
    from tussis.worker.demo.encoding import encode
    from tussis.worker.demo.recipes import recipes

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    made = []
    for recipe in recipes(count):
        path = folder / recipe.file_name
        if not path.exists():
            write_whole(path, encode(recipe.samples(), recipe.rate_hz, recipe.format))
        made.append(DemoRecording(path, f"{_SYNTHETIC_PREFIX}{recipe.file_name}"))
    return tuple(made)


def found_in(folder: Path, limit: int | None) -> Found:
    """The files below ``folder`` with a suffix of audio, in the order of their paths; at most ``limit`` recordings.

    Raises :class:`FileUnreadable` when the folder does not exist, or no such file in it can be read.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise FileUnreadable(f"the folder of recordings {what}: {folder}")
    recordings: list[DemoRecording] = []
    skipped: list[Skipped] = []
    for path in sorted(_files(folder)):
        if limit is not None and len(recordings) == limit:
            break
        key = _key(folder, path)
        try:
            check_key(key)
        except InvalidUri as error:
            skipped.append(Skipped(path, str(error)))
            continue
        if os.access(path, os.R_OK):
            recordings.append(DemoRecording(path, key))
        else:
            skipped.append(Skipped(path, "no permission to read it"))
    if not recordings and not skipped:
        raise FileUnreadable(f"no audio file in {folder}: no name ends in .wav, .mp3, .ogg or a similar suffix")
    if not recordings:
        raise FileUnreadable(f"no audio file in {folder} can be read: {skipped[0].path}: {skipped[0].reason}")
    return Found(tuple(recordings), tuple(skipped))


def _files(folder: Path) -> Iterator[Path]:
    """Plain files with a suffix of audio, at any depth, without hidden folders and files."""
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(root, name)
            if path.suffix.lower() in AUDIO_SUFFIXES and not name.startswith(".") and path.is_file():
                yield path


def _key(folder: Path, path: Path) -> str:
    """The folder's name and the path below it. Bytes that are not UTF-8 become the replacement character."""
    relative = path.relative_to(folder).as_posix()
    return os.fsencode(f"{folder.resolve().name or 'root'}/{relative}").decode("utf-8", errors="replace")
