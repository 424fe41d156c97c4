"""The child's end of a recording: it copies blocks out of the shared memory, and checks the copies."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from tussis.shared.errors import AudioError, TussisError
from tussis.worker.audio.gathered import Gathered
from tussis.worker.audio.jail import protocol
from tussis.worker.audio.jail.protocol import (
    MAX_STREAMS,
    SLOT_BYTES,
    SLOTS,
    Block,
    Done,
    End,
    Failed,
    Reply,
    Stream,
    Violation,
)
from tussis.worker.audio.samples import Audio, Source

Open = Callable[[int, int, Source], Gathered]


class Receiver:
    """The streams of one recording. Limits, quality and finiteness are checked here, on copies."""

    def __init__(self, id_: int, memory: int, open_stream: Open) -> None:
        """``memory``: the file descriptor of the shared memory."""
        self._id: Final = id_
        self._memory = memory
        self._open_stream = open_stream
        self._stream: Stream | None = None
        self._gathered: Gathered | None = None
        self._ended: dict[int, Audio] = {}
        self._streams = 0
        self._ignored = 0

    def take(self, reply: Reply) -> bytes | Audio:
        """Act on a reply. Returns the answer, which may be empty, or the recording.

        Raises:
            Violation: no decoder would have said this here.
            TussisError: the recording is refused.
        """
        match reply:
            case Stream():
                self._begin(reply)
                return b""
            case Block():
                return self._add(reply)
            case End():
                return self._end(reply)
            case Done():
                if reply.number not in self._ended:
                    raise Violation("a stream that counts does not exist")
                return replace(self._ended[reply.number], incomplete=reply.incomplete)
            case Failed():
                raise reply.error

    def _begin(self, stream: Stream) -> None:
        if stream.number != self._streams or self._streams >= MAX_STREAMS:
            raise Violation("a stream has a wrong number")
        self._streams += 1
        # The first stream counts when all others are silent. Of these only the last can count.
        self._ended = {number: audio for number, audio in self._ended.items() if number == 0}
        try:
            self._gathered = self._open_stream(stream.rate_hz, stream.channels, stream.source)
        except AudioError as error:
            raise Violation(f"a stream is outside the limits: {error}") from None
        self._stream = stream
        self._ignored = 0

    def _add(self, block: Block) -> bytes:
        stream = self._current(block.number)
        if not (block.slot < SLOTS and 0 < block.frames <= protocol.room(stream.channels)):
            raise Violation("a block is larger than its place")
        if self._gathered is None:
            return self._ignore()
        try:
            self._gathered.add(self._copy(stream.channels, block))
        except AudioError as error:
            return self._refused(error)
        return protocol.TAKEN.pack(protocol.K_TAKEN, self._id, block.slot)

    def _end(self, end: End) -> bytes:
        self._current(end.number)
        gathered, self._gathered = self._gathered, None
        if gathered is None:
            if end.number in self._ended:
                raise Violation("a stream ends twice")
            return self._ignore()
        try:
            audio = gathered.audio(incomplete=end.incomplete)
            peak = audio.peak
        except AudioError as error:
            return self._refused(error)
        self._ended[end.number] = audio
        return protocol.ENDED.pack(protocol.K_ENDED, self._id, peak)

    def _ignore(self) -> bytes:
        """What follows in a refused stream: sent before the refusal was read, so not more than the places hold."""
        self._ignored += 1
        if self._ignored > SLOTS:
            raise Violation("a refused stream goes on")
        return b""

    def _refused(self, error: TussisError) -> bytes:
        self._gathered = None
        return protocol.failed(self._id, error, protocol.K_REFUSED)

    def _current(self, number: int) -> Stream:
        if self._stream is None or self._stream.number != number:
            raise Violation("a block or an end is of no open stream")
        return self._stream

    def _copy(self, channels: int, block: Block) -> npt.NDArray[np.float32]:
        """The samples as float32 (channels, n). ``pread`` cannot fail half-way as reading a mapping could."""
        start = block.slot * SLOT_BYTES
        if block.interleaved:
            frames = np.empty((block.frames, channels), np.float32)
            self._fill(frames, start)
            return frames.T
        samples = np.empty((channels, block.frames), np.float32)
        for channel in range(channels):
            self._fill(samples[channel], start + 4 * channel * protocol.room(channels))
        return samples

    def _fill(self, target: npt.NDArray[np.float32], offset: int) -> None:
        if os.preadv(self._memory, [target.data], offset) != target.nbytes:
            raise Violation("the shared memory is shorter than it was")
