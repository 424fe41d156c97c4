"""The decoder process's end of a recording: streams whose blocks go into the shared memory."""

from __future__ import annotations

import socket
import struct
from typing import Final

import numpy as np
import numpy.typing as npt

from tussis.shared.errors import NoSamples, TussisError
from tussis.worker.audio.jail import protocol
from tussis.worker.audio.jail.protocol import K_ENDED, K_REFUSED, K_TAKEN, MAX_DATAGRAM, SLOT_SAMPLES, SLOTS
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.samples import Source


class Conversation:
    """One recording. :meth:`open_stream` is the argument of the decoders."""

    def __init__(self, channel: socket.socket, memory: npt.NDArray[np.float32], id_: int, limits: Limits) -> None:
        """``memory``: float32 (SLOTS * SLOT_SAMPLES,), shared with the child."""
        self._channel = channel
        self._memory = memory
        self._limits = limits
        self._waiting: set[int] = set()
        self._refusal: TussisError | None = None
        self.id: Final = id_
        self.streams = 0

    def open_stream(self, rate_hz: int, channels: int, source: Source) -> SentStream:
        """As :class:`Gathered`, which the child makes for this stream."""
        self._limits.check_layout(rate_hz, channels)
        while self._waiting:
            self._hear()
        self._refusal = None
        number, self.streams = self.streams, self.streams + 1
        self.send(protocol.stream(self.id, number, rate_hz, channels, source))
        return SentStream(self, number, self._limits, rate_hz, channels)

    def send(self, datagram: bytes) -> None:
        self._channel.send(datagram)

    def free_slot(self) -> int:
        """A place that the child has emptied. Raises the child's refusal of the stream."""
        while len(self._waiting) == SLOTS:
            self._hear()
        self._check()
        return next(slot for slot in range(SLOTS) if slot not in self._waiting)

    def slot(self, number: int) -> npt.NDArray[np.float32]:
        return self._memory[number * SLOT_SAMPLES : (number + 1) * SLOT_SAMPLES]

    def filled(self, number: int, slot: int, frames: int, interleaved: bool) -> None:
        self.send(protocol.block(self.id, number, slot, frames, interleaved))
        self._waiting.add(slot)

    def end(self, number: int, incomplete: bool) -> float:
        """End the stream. Returns its peak. Raises the child's refusal."""
        self.send(protocol.end(self.id, number, incomplete))
        peak = None
        while self._waiting or (peak is None and self._refusal is None):
            peak = self._hear()
        self._check()
        assert peak is not None
        return peak

    def _check(self) -> None:
        if self._refusal is not None:
            while self._waiting:
                self._hear()
            raise self._refusal

    def _hear(self) -> float | None:
        """Read what the child says. Returns the peak of a stream that it has ended."""
        datagram = self._channel.recv(MAX_DATAGRAM)
        if not datagram:
            raise EOFError
        if protocol.HEAD.unpack_from(datagram)[1] != self.id:
            return None  # About blocks of the last recording, which ended with an error before they were taken.
        if datagram[0] == K_TAKEN:
            self._waiting.discard(protocol.TAKEN.unpack(datagram)[2])
        elif datagram[0] == K_REFUSED:
            # The child has read all blocks of a refused stream, and ignores those that follow.
            self._waiting.clear()
            self._refusal = protocol.read_error(datagram)
        elif datagram[0] == K_ENDED:
            return float(protocol.ENDED.unpack(datagram)[2])
        else:
            raise struct.error
        return None


class SentStream:
    """A stream whose samples go to the child: a :class:`Gathering`, and after its end a :class:`Decoded`."""

    def __init__(self, talk: Conversation, number: int, limits: Limits, rate_hz: int, channels: int) -> None:
        self._talk = talk
        self._limits = limits
        self._rate_hz = rate_hz
        self._channels = channels
        self._room = protocol.room(channels)
        self._slot: int | None = None
        self._filled = 0
        self._interleaved = False
        self._frames = 0
        self.number: Final = number
        self.peak = 0.0
        self.incomplete = False

    @property
    def duration_s(self) -> float:
        return self._frames / self._rate_hz

    def add(self, block: npt.NDArray[np.float32]) -> None:
        """Append (channels, n) samples. Raises :class:`TooLong`, and what the child finds in the samples before."""
        self._frames += block.shape[1]
        self._limits.check_length(self._frames, self._rate_hz, self._channels)
        # The order in memory is kept: numpy adds eight channels in another order when they lie beside each other.
        interleaved = not block.flags.c_contiguous
        if interleaved is not self._interleaved:
            self._flush()
            self._interleaved = interleaved
        start = 0
        while start < block.shape[1]:
            if self._slot is None:
                self._slot = self._talk.free_slot()
            taken = min(self._room - self._filled, block.shape[1] - start)
            self._view(self._slot)[:, self._filled : self._filled + taken] = block[:, start : start + taken]
            self._filled += taken
            start += taken
            if self._filled == self._room:
                self._flush()

    def audio(self, *, incomplete: bool) -> SentStream:
        """End the stream. Raises :class:`NoSamples`, and what the child finds in the samples."""
        if self._frames == 0:
            raise NoSamples
        self._flush()
        self.peak = self._talk.end(self.number, incomplete)
        self.incomplete = incomplete
        return self

    def _view(self, slot: int) -> npt.NDArray[np.float32]:
        """The place as (channels, room)."""
        memory = self._talk.slot(slot)[: self._room * self._channels]
        if self._interleaved:
            return memory.reshape(self._room, self._channels).T
        return memory.reshape(self._channels, self._room)

    def _flush(self) -> None:
        if self._slot is not None:
            self._talk.filled(self.number, self._slot, self._filled, self._interleaved)
            self._slot = None
            self._filled = 0
