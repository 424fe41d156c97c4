"""The decoder process: ``python -m tussis.worker.audio.jail.process ARGUMENTS``, a new interpreter without secrets.

It loads the libraries, decodes small files so that nothing is loaded later, shuts itself in, and then decodes one
recording after the other. It never ends by itself: the child kills it, or it is killed when the child ends.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

import av
import numpy as np
import soundfile

from tussis.shared.errors import DecoderOutOfMemory, InternalFault, TussisError
from tussis.worker.audio.jail import protocol
from tussis.worker.audio.jail.lockdown import Missing, end_with, lock_down
from tussis.worker.audio.jail.protocol import DECODE, K_DECODE, MAX_DATAGRAM, SLOT_BYTES, SLOTS
from tussis.worker.audio.jail.sending import Conversation, SentStream
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.native import decode_native
from tussis.worker.audio.samples import Gathering, OpenStream, Source
from tussis.worker.shortage import is_shortage

_MEMORY_FACTOR: Final = 4
"""Copies of the object that decoding may hold: the bytes, those with completed lengths, and FFmpeg's buffers."""
_MEMORY_BASE: Final = 512 * 2**20
"""Bytes of address space besides them: the stacks and heaps of threads, tables of the largest files."""

Decode = Callable[[bytes, Limits, OpenStream[SentStream]], tuple[SentStream, bool]]


@dataclass(frozen=True)
class Arguments:
    """The arguments of a decoder process: three file descriptors, the limits, and the process that starts it."""

    channel: int
    objects: int
    samples: int
    parent: int
    limits: Limits

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Arguments:
        values: dict[str, Any] = json.loads(text)
        return cls(**{**values, "limits": Limits(**values["limits"])})


def main(decode: Decode = decode_native) -> None:
    """Shut in, report, and serve. ``decode`` is another function in tests only."""
    arguments = Arguments.from_json(sys.argv[1])
    end_with(arguments.parent)
    channel = socket.socket(fileno=arguments.channel)
    try:
        warm_up()
        memory = mmap.mmap(arguments.samples, SLOTS * SLOT_BYTES)
        missing = lock_down(
            (arguments.channel, arguments.objects),
            _MEMORY_BASE + _MEMORY_FACTOR * arguments.limits.max_bytes,
        )
        report: dict[str, list[str] | str] = {"missing": missing}
    except (Missing, OSError) as error:
        report = {"refused": str(error)}
    channel.send(bytes([protocol.K_READY]) + json.dumps(report).encode())
    if "refused" in report:
        return
    samples = np.frombuffer(memory, np.float32)
    while datagram := channel.recv(MAX_DATAGRAM):
        if datagram[0] != K_DECODE:
            continue  # About blocks of the last recording, which ended with an error before they were taken.
        _, id_, size = DECODE.unpack(datagram)
        talk = Conversation(channel, samples, id_, arguments.limits)
        channel.send(_answer(talk, decode, arguments, size))


def _answer(talk: Conversation, decode: Decode, arguments: Arguments, size: int) -> bytes:
    try:
        stream, incomplete = decode(_read(arguments.objects, size), arguments.limits, talk.open_stream)
    except EOFError:
        os._exit(0)
    except Exception as error:
        if is_shortage(error):
            error = DecoderOutOfMemory("the decoder process ran out of memory")
        elif not isinstance(error, TussisError):
            error = InternalFault(f"{type(error).__name__}: {error}")
        return protocol.failed(talk.id, error)
    return protocol.done(talk.id, stream.number, incomplete)


def _read(fd: int, size: int) -> bytes:
    data = os.pread(fd, size, 0)
    if len(data) == size:
        return data
    parts = [data]  # Linux reads 2 GiB at a time
    while (at := sum(map(len, parts))) < size:
        parts.append(os.pread(fd, size - at, at))
    return b"".join(parts)


class _Nowhere:
    """A stream that keeps nothing."""

    peak = 1.0
    duration_s = 0.0
    incomplete = False

    def add(self, block: Any) -> None:
        """Forget the block."""

    def audio(self, *, incomplete: bool) -> _Nowhere:
        return self


def _nowhere(rate_hz: int, channels: int, source: Source) -> Gathering[_Nowhere]:
    return _Nowhere()


def warm_up() -> None:
    """Decode small files, so that the libraries load and start what they do only once."""
    decode = partial(decode_native, limits=Limits(), open_stream=_nowhere)
    silence = np.zeros((4_800, 2), np.float32)
    for kind in ("WAV", "AIFF", "FLAC"):
        file = io.BytesIO()
        soundfile.write(file, silence, 48_000, format=kind)
        decode(file.getvalue())
    resampler = av.AudioResampler("fltp", "mono", 16_000)
    frame = av.AudioFrame.from_ndarray(np.zeros((2, 4_800), np.float32), "fltp", "stereo")
    frame.sample_rate = 48_000
    for part in (frame, None):
        resampler.resample(part)


if __name__ == "__main__":
    main()
