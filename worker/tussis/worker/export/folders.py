"""New folders for files whose names come from S3 keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tussis.shared.errors import OutputUnwritable

#: What a name does not have: anything except letters and digits of any language, the underscore, the dot and the dash.
_UNSAFE: Final = re.compile(r"[^\w.-]+")
#: Bytes of a key in a name. The longest name of a file is 255 bytes on Linux and macOS.
_MAX_BYTES: Final = 160


def new_folder(folder: Path) -> None:
    """Make the folder. An empty folder is used as it is.

    Raises:
        OutputUnwritable: it has files, is a file, or cannot be made.
    """
    try:
        folder.mkdir(exist_ok=True)
        if any(folder.iterdir()):
            raise OutputUnwritable(f"cannot write to the folder {folder}: it is not empty; name a new one")
    except OSError as error:
        raise OutputUnwritable(f"cannot write to the folder {folder}: {error.strerror or error}") from error


def file_name(key: str, number: str, suffix: str) -> str:
    """A name for a file about an object: the end of its key, ``number``, and ``suffix`` with its dot.

    Whatever the key is, the result is one name without a folder, is not hidden, and is not read as an option. Two names
    are different if their numbers are: a number has only digits and underscores.
    """
    safe = _UNSAFE.sub("_", key).encode("utf-8")[-_MAX_BYTES:].decode("utf-8", errors="ignore").lstrip("._-")
    return f"{safe or 'recording'}-{number}{suffix}"
