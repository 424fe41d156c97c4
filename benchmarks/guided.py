"""Coverage-guided fuzzing of what is written in Python: container readers, and the child's end of the jail's protocol.

``python -m benchmarks.guided readers|protocol RUNS SEED [FOLDER]`` runs atheris (libFuzzer) in this process, which ends
with status 0 after ``RUNS`` inputs without a finding. Libraries in C are not reached: their wheels have no
instrumentation. :mod:`benchmarks.fuzz` feeds them.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Final

_INSTRUMENTED: Final = [f"tussis.worker.audio.{name}" for name in ("headers", "sniff", "canonical", "truncation")] + [
    f"tussis.worker.audio.{name}" for name in ("unfinished", "mp4", "mpeg", "table", "limits", "native", "jail")
]
_MOST_BYTES: Final = 1 << 14
#: Bytes before each datagram in an input of the protocol's target.
_LENGTH: Final = 1


def main(target: str, runs: int, seed: int, folder: Path | None) -> None:
    """Fuzz; ends the process."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=_INSTRUMENTED):
        one = _readers() if target == "readers" else _protocol()
    with tempfile.TemporaryDirectory() as found:
        corpus = [found] if folder is None else [found, str(folder)]
        if target == "protocol":
            (Path(found) / "conversation").write_bytes(_conversation())
        options = [f"-runs={runs}", f"-seed={seed}", f"-max_len={_MOST_BYTES}", f"-artifact_prefix={os.getcwd()}/"]
        atheris.Setup([sys.argv[0], *options, *corpus], one)
        atheris.Fuzz()


def _readers() -> Any:
    from tussis.shared.errors import TussisError
    from tussis.worker.audio.canonical import canonical
    from tussis.worker.audio.limits import Limits
    from tussis.worker.audio.native import examine, is_incomplete

    limits = Limits(max_bytes=_MOST_BYTES, max_duration_s=60.0)

    def one(data: bytes) -> None:
        try:
            sniffed, header, source = examine(data, limits)
            is_incomplete(data, sniffed, header, 0.0, found=False)
            if header is None or not header.uncompressed:
                return
            made = b"".join(canonical(source, sniffed.container, sniffed.offset))
        except TussisError:
            return
        # What libsndfile gets has one format and nothing else: made anew, it stays as it is.
        again, _, _ = examine(made, Limits(max_bytes=2 * _MOST_BYTES, max_duration_s=60.0))
        assert b"".join(canonical(made, again.container, again.offset)) == made

    return one


def _protocol() -> Any:
    from tussis.shared.errors import TussisError
    from tussis.worker.audio.gathered import Gathered
    from tussis.worker.audio.jail import protocol
    from tussis.worker.audio.jail.receiving import Receiver
    from tussis.worker.audio.limits import Limits

    memory = os.memfd_create("samples")
    os.ftruncate(memory, protocol.SLOTS * protocol.SLOT_BYTES)
    limits = Limits(max_bytes=_MOST_BYTES, max_duration_s=60.0)

    def one(data: bytes) -> None:
        receiver, at = Receiver(7, memory, partial(Gathered, limits)), 0
        try:
            while at < len(data):
                length = data[at]
                at += _LENGTH + length
                receiver.take(protocol.unpack(data[at - length : at], 7))
        except (TussisError, protocol.Violation):
            return

    return one


def _conversation() -> bytes:
    from tussis.worker.audio.jail import protocol
    from tussis.worker.audio.samples import Source

    talk = (
        protocol.stream(7, 0, 16_000, 2, Source("wav", "pcm_s16", "soundfile")),
        protocol.block(7, 0, 0, 100, interleaved=False),
        protocol.block(7, 0, 1, 100, interleaved=True),
        protocol.end(7, 0, incomplete=False),
        protocol.done(7, 0, incomplete=False),
    )
    return b"".join(bytes([len(datagram)]) + datagram for datagram in talk)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]) if len(sys.argv) > 4 else None)
