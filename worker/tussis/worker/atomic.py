"""Atomic file writes: a reader sees the old file or the new file, also after a crash of the writer."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacement(path: Path, *, mode: int = 0o644, durable: bool = False) -> Iterator[BinaryIO]:
    """A stream that becomes ``path`` when the block ends without an error. After an error its bytes are discarded.

    ``mode`` is the mode of the new file. ``durable``: the bytes are on the disk before the name is. Raises OSError.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode), "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            yield stream
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def replace_file(path: Path, data: bytes, *, mode: int = 0o644, durable: bool = False) -> None:
    """Write a file atomically, with :func:`replacement`. Raises OSError."""
    with replacement(path, mode=mode, durable=durable) as stream:
        stream.write(data)
