"""Uploads local files as new objects: one request of ``tussis enqueue`` for each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from io import BufferedIOBase
from pathlib import Path
from typing import Any, Final, cast

from tussis.shared.errors import CallerError, FileUnreadable, PermanentError, TussisError
from tussis.shared.folders import files_in
from tussis.shared.job_requests import JobRequest
from tussis.shared.uploads import Uploaded, new_key, upload, uploaded_before
from tussis.shared.uris import ObjectAddress, check_key

STDIN: Final = "-"
_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class LocalFile:
    """A file to upload. ``path`` is ``-`` for standard input. ``name`` is its path below the folder that was given."""

    path: str
    name: str


@dataclass(frozen=True)
class Uploader:
    """Where files go. ``keep_names``: the key is the file's name, and not a random one."""

    s3: Any
    prefix: ObjectAddress
    keep_names: bool
    max_bytes: int

    def requests(
        self,
        files: Iterable[LocalFile],
        like: JobRequest,
        uploaded: Callable[[LocalFile, Uploaded], None],
        refused: Callable[[LocalFile, TussisError], None],
    ) -> Iterator[JobRequest]:
        """Upload each file; yields its request, pinned to the object. ``like`` has the other fields.

        A file that cannot be read, is empty or too large, or whose key has other content, is refused. Raises the
        errors that concern all files.
        """
        for file in files:
            try:
                stored = self._store(file)
            except (CallerError, PermanentError) as error:
                refused(file, error)
                continue
            uploaded(file, stored)
            yield replace(like, uri=stored.uri, etag=stored.etag, version_id=stored.version_id)

    def _store(self, file: LocalFile) -> Uploaded:
        if not self.keep_names:
            address = ObjectAddress(self.prefix.bucket, new_key(self.prefix.key, file.name))
            return upload(self.s3, address, _chunks(file), max_bytes=self.max_bytes)
        name = os.fsencode(file.name).decode("utf-8", errors="replace")
        address = ObjectAddress(self.prefix.bucket, self.prefix.key + name)
        check_key(address.key)
        known = uploaded_before(self.s3, address, _chunks(file), max_bytes=self.max_bytes)
        return known or upload(self.s3, address, _chunks(file), max_bytes=self.max_bytes, only_new=True)


def expand(arguments: Iterable[str]) -> Iterator[LocalFile]:
    """The files of the arguments, in their order. A folder stands for all files below it, without hidden ones.

    Raises :class:`FileUnreadable` for a folder without files.
    """
    for argument in arguments:
        path = Path(argument)
        if argument == STDIN or not path.is_dir():
            yield LocalFile(argument, path.name)
            continue
        found = files_in(path)
        if not found:
            raise FileUnreadable(f"no file is in the folder {argument}: hidden files are left out")
        yield from (LocalFile(str(file), file.relative_to(path).as_posix()) for file in found)


def _chunks(file: LocalFile) -> Iterator[bytes]:
    """The bytes of the file. Raises :class:`FileUnreadable`."""
    try:
        if file.path == STDIN:
            stdin = cast(BufferedIOBase, sys.stdin.buffer)
            while chunk := stdin.read1(_CHUNK):
                yield chunk
            return
        with open(file.path, "rb") as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise FileUnreadable(f"cannot read it: {error.strerror}") from error
