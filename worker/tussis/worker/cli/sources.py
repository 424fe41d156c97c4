"""Expands the arguments of the command to recordings: files, folders and s3:// prefixes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tussis.shared.errors import ObjectMissing
from tussis.shared.folders import files_in
from tussis.shared.s3 import list_objects
from tussis.shared.uris import ObjectAddress, parse_s3_prefix


def expand(sources: Iterable[str], client: Callable[[], Any]) -> Iterator[str]:
    """The recordings of the arguments, each once, in their order.

    A folder stands for all files below it, without hidden ones. An ``s3://`` URI stands for the object with exactly
    this key, otherwise for all objects whose keys begin with it. A path that is no folder is returned as it is.

    Raises :class:`ObjectMissing` if no key begins with a URI, and the errors of a listing.
    """
    seen = set()
    for source in sources:
        for found in _objects(source, client()) if source.startswith("s3://") else _files(source):
            if found not in seen:
                seen.add(found)
                yield found


def _files(source: str) -> Iterator[str]:
    path = Path(source)
    yield from map(str, files_in(path)) if path.is_dir() else [source]


def _objects(uri: str, s3: Any) -> Iterator[str]:
    bucket, prefix = parse_s3_prefix(uri)
    empty = True
    for listed in list_objects(s3, bucket, prefix):
        empty = False
        yield ObjectAddress(bucket, listed.key).uri
        if listed.key == prefix:  # the first of a listing, because it is sorted
            return
    if empty:
        raise ObjectMissing(f"no object has a key that begins with {uri}: check the URI")
