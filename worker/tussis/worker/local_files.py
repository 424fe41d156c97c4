"""Local files that a command reads and writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tussis.shared.errors import FileUnreadable, ObjectTooLarge, OutputUnwritable
from tussis.worker.atomic import replacement


def read_capped(path: Path, max_bytes: int) -> bytes:
    """A local file's bytes.

    Raises:
        FileUnreadable: the file does not exist, is a directory, or may not be read.
        ObjectTooLarge: the file has more than ``max_bytes``. At most ``max_bytes`` + 1 bytes are read.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(max_bytes + 1)
    except OSError as error:
        raise FileUnreadable(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > max_bytes:
        raise ObjectTooLarge(f"{path} is over the limit of {max_bytes} bytes (TUSSIS_MAX_BYTES)")
    return data


def check_output(output: Path, source: Path | None = None) -> None:
    """Check the output path before any work is done.

    Raises:
        OutputUnwritable: ``output`` is the source itself or not a plain file, or its folder does not exist.
    """
    if not output.parent.is_dir():
        raise OutputUnwritable(f"cannot write {output}: there is no folder {output.parent}")
    if not output.exists():
        return
    if not output.is_file():
        raise OutputUnwritable(f"cannot write {output}: it exists and is not a plain file")
    if source is not None and source.exists() and output.samefile(source):
        raise OutputUnwritable(f"cannot write {output}: it is the recording itself")


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A stream that becomes ``path`` when the block ends without an error. After an error its bytes are discarded.

    Raises:
        OutputUnwritable: the file cannot be written to the folder or the disk.
    """
    try:
        with replacement(path) as stream:
            yield stream
    except OSError as error:
        raise OutputUnwritable(f"cannot write {path}: {error.strerror or error}") from error
