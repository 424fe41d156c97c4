"""The decoded frames of one stream, read from PyAV without the calls that crash the process.

Two bugs of PyAV 16 to 18 end the process by a signal, which no ``except`` catches:

* ``AudioFrame.planes``, and with it ``to_ndarray``, counts the planes up to a null pointer. Planar audio of 8 channels
  or more has no null pointer (7.1 in AAC, ALAC, Opus, Vorbis). :func:`joined` takes one plane for each channel.
* ``AudioFrame.layout`` and ``AudioCodecContext.layout`` copy FFmpeg's structure, which may have a pointer, and both
  copies free that pointer (PyAV 18). Only layouts of custom order have the pointer: the file defines its own order of
  speakers. A QuickTime header may do so even for two channels. :func:`own_layout` replaces the header's layout before
  the decoder is opened. :class:`Frames` raises an error for custom layouts that a decoder makes itself.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.plane import AudioPlane
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

from tussis.shared.errors import CodecUnsupportedByProfile, CorruptAudio
from tussis.worker.audio.samples import full_scale

#: Most changes of rate or channels within one stream. Each change needs a new resampler, and its setup takes longer
#: than decoding its audio. A recording that was joined from a few pieces has fewer changes.
_MAX_CHANGES: Final = 16

#: Samples of a channel from which on a block is complete: 0.7 s at 48 kHz.
_BLOCK: Final = 2**15

#: numpy's type of each FFmpeg sample format, without the ``p`` of the planar ones.
_TYPES: Final[dict[str, type[np.generic]]] = {
    "u8": np.uint8,
    "s16": np.int16,
    "s32": np.int32,
    "flt": np.float32,
    "dbl": np.float64,
}

#: FFmpeg's speakers in the order of its native layouts (libavutil/channel_layout.h).
_SPEAKERS: Final = (
    "FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR", "TC", "TFL", "TFC", "TFR", "TBL", "TBC",
    "TBR", "DL", "DR", "WL", "WR", "SDL", "SDR", "LFE2", "TSL", "TSR", "BFC", "BFL", "BFR", "SSL", "SSR", "TTL", "TTR",
)  # fmt: skip


def own_layout(context: AudioCodecContext) -> int:
    """Return the number of channels of a decoder that is not open yet, and make its layout safe to read.

    Reading a custom layout leaves the context with a pointer to freed memory (PyAV 18). So the layout is replaced at
    once by one that has no pointer. The decoders of uncompressed audio keep this layout; the others set their own.
    """
    layout = context.layout
    channels, name = layout.nb_channels, layout.name
    if channels > 0:
        context.layout = f"{channels} channels" if " channels" in name or "ambisonic" in name else name
    return channels


class Frames:
    """The frames of a stream, without the packets that cannot be decoded."""

    def __init__(self, container: InputContainer, stream: AudioStream) -> None:
        self._container = container
        self._stream = stream
        self.damaged = False
        """Whether any packet was skipped."""

    def __iter__(self) -> Iterator[AudioFrame]:
        """Raises :class:`CodecUnsupportedByProfile` for a custom order of speakers, which PyAV cannot return."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                self.damaged = True
                return
            if packet is None:
                return
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                self.damaged = True
                continue
            frames = [frame for frame in decoded if isinstance(frame, AudioFrame)]
            custom = [frame.layout for frame in frames if _is_custom(frame.layout.name)]
            if custom:
                for layout in custom:
                    _keep_for_ever(layout)
                raise CodecUnsupportedByProfile(f"the channel layout {custom[0].name[:80]} is not supported")
            yield from frames


def _keep_for_ever(layout: AudioLayout) -> None:
    """Leak one reference, so that only the frame frees the memory. Costs a few hundred bytes a refused stream."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(layout))


def _is_custom(layout: str) -> bool:
    """Whether FFmpeg's description is that of a custom layout, such as "3 channels (FR+FL+FC)"."""
    _, found, listed = layout.partition(" channels (")
    if not found:
        return False
    places = [_SPEAKERS.index(name) if name in _SPEAKERS else -1 for name in listed.rstrip(")").split("+")]
    return -1 in places or places != sorted(set(places))


def one_layout(frames: Frames) -> Iterator[AudioFrame]:
    """The frames, all in the rate and channel layout of the first one; frames that differ are converted."""
    first: tuple[int, str] | None = None
    current: tuple[int, str] | None = None
    resampler: AudioResampler | None = None
    changes = 0
    for frame in frames:
        layout = (frame.sample_rate, frame.layout.name)
        first = first or layout
        if current is not None and layout != current:
            changes += 1
            if changes > _MAX_CHANGES:
                raise CorruptAudio(f"the stream changes its sample rate or channels more than {_MAX_CHANGES} times")
            if resampler is not None:
                yield from resampler.resample(None)
            resampler = None if layout == first else AudioResampler("fltp", first[1], first[0])
        current = layout
        if resampler is None:
            yield frame
        else:
            frame.pts = None
            yield from resampler.resample(frame)
    if resampler is not None:
        yield from resampler.resample(None)


def blocks(frames: Iterable[AudioFrame]) -> Iterator[npt.NDArray[np.float32]]:
    """The samples of the frames, as float32 (channels, n) with full scale 1.0.

    A codec's frame has a few hundred samples. One block takes many frames, because the calls of numpy for a block take
    longer than its samples.
    """
    held: list[AudioFrame] = []
    samples = 0
    for frame in frames:
        # One format in a block: a decoder may change it within a stream.
        if held and frame.format.name != held[0].format.name:
            yield joined(held)
            held, samples = [], 0
        held.append(frame)
        samples += frame.samples
        if samples >= _BLOCK:
            yield joined(held)
            held, samples = [], 0
    if held:
        yield joined(held)


def joined(frames: Sequence[AudioFrame]) -> npt.NDArray[np.float32]:
    """Frames of one format and layout, one after the other, as float32 (channels, n). Interleaved samples stay so."""
    form, channels = frames[0].format, frames[0].layout.nb_channels
    kind = _TYPES[form.name.removesuffix("p")]
    total = sum(frame.samples for frame in frames)
    planes, width = (channels, 1) if form.is_planar else (1, channels)
    whole = np.empty((planes, total * width), kind)
    at = 0
    for frame in frames:
        count = frame.samples * width
        for index in range(planes):
            plane: Any = AudioPlane(frame, index)  # a buffer, which its stub does not declare
            whole[index, at : at + count] = np.frombuffer(plane, kind, count)
        at += count
    return full_scale(whole if form.is_planar else whole.reshape(-1, channels).T)
