"""The files of a folder that commands take as recordings."""

from __future__ import annotations

import os
from pathlib import Path

from tussis.shared.errors import FileUnreadable


def files_in(folder: Path) -> tuple[Path, ...]:
    """All regular files below a folder, sorted by path. Hidden files and folders are left out.

    Raises :class:`FileUnreadable` if the folder does not exist.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise FileUnreadable(f"{folder} {what}: give a folder of recordings")
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return tuple(sorted(path for path in found if path.is_file()))
