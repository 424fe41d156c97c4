"""The recordings of ``tussis models compare`` and ``verify``: read one by one, with a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from tussis.shared.errors import OperatorError, StorageAccessDenied, TooFewRecordings, TussisError
from tussis.shared.text import printable

if TYPE_CHECKING:
    from tussis.worker.pipeline.analysis import Analyzer


class Recordings:
    """Files, folders and s3:// prefixes. A recording that cannot be read is named and left out."""

    def __init__(self, sources: Sequence[str], analyzer: Analyzer) -> None:
        """``analyzer`` reads the recordings."""
        self.left_out: list[dict[str, str]] = []
        """The recordings that were left out, with the class and the message of the error."""
        self._sources = sources
        self._analyzer = analyzer

    def read(self, doing: str) -> Iterator[tuple[str, bytes]]:
        """Source and bytes of each recording.

        Raises:
            TooFewRecordings: the arguments name no recording.
            OperatorError: the deployment is wrong, so that every recording would fail.
        """
        from tussis.worker.cli.sources import expand

        found = list(expand(self._sources, self._analyzer.client))
        if not found:
            raise TooFewRecordings(
                f"no recordings in {', '.join(self._sources)}: give files, folders or s3:// prefixes"
            )
        label = f"{doing} {len(found):,} recordings"
        with click.progressbar(length=len(found), label=label, file=sys.stderr) as bar:
            for source in found:
                try:
                    data = self._analyzer.read(source)
                except TussisError as error:
                    # Access may be denied to one object only. Every other operator's error concerns all recordings.
                    if isinstance(error, OperatorError) and not isinstance(error, StorageAccessDenied):
                        raise
                    self.leave_out(source, error.error_class, str(error))
                else:
                    yield source, data
                bar.update(1)

    def leave_out(self, source: str, error_class: str, message: str) -> None:
        """Name a recording that has no answer, and the reason."""
        self.left_out.append({"uri": source, "class": error_class, "message": message})
        click.echo(printable(f"left out: {source}: {message}"), err=True)
