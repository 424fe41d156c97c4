"""Every codec proper, through FFmpeg's libraries as PyAV ships them.

FFmpeg is told everything and guesses nothing: it reads an unnamed buffer in memory, by the one demuxer that the
sniffed container names, may open no protocol at all, and may run no decoder outside the table.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Final

import av
import av.logging
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

from tussis.shared.errors import CodecUnsupportedByProfile, CorruptAudio, NoAudioStream, NoSamples
from tussis.worker.audio import mp4, mpeg
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.samples import Audio, Gathered, full_scale
from tussis.worker.audio.sniff import Container, Sniffed
from tussis.worker.audio.table import DEMUXERS, FFMPEG_DECODERS, PYAV

# A damaged upload is a result, not something for the worker's standard error.
av.logging.set_level(None)
av.logging.set_libav_level(av.logging.PANIC)

#: Samples a channel in one frame. FLAC's longest has 65 535; an ALAC header may ask for 16 million.
_MAX_FRAME_SAMPLES: Final = 2**17

#: Changes of rate or channels within one stream. Each costs a resampler, which takes longer to set up than its audio to
#: decode; a recording glued together from a few pieces stays below.
_MAX_CHANGES: Final = 16

_STREAM_OPTIONS: Final = {
    "codec_whitelist": ",".join(FFMPEG_DECODERS),
    "max_samples": str(_MAX_FRAME_SAMPLES),
    "threads": "1",
}


def open_container(data: bytes, sniffed: Sniffed) -> InputContainer:
    """Open ``data`` for reading, from its sniffed offset.

    Raises:
        CorruptAudio: FFmpeg finds no structure that it can read, or one that asks for too much memory.
        NoSamples: an MP3 of one frame, which holds the encoder's settings.
    """
    demuxer = DEMUXERS[sniffed.container]
    end = len(data)
    if sniffed.container is Container.MP4:
        mp4.check_boxes(data, sniffed.offset)
        end = mp4.readable_end(data, sniffed.offset)
    try:
        return av.open(
            io.BytesIO(data[sniffed.offset : end]),
            mode="r",
            format=demuxer,
            metadata_errors="replace",
            container_options={
                "format_whitelist": demuxer,
                "protocol_whitelist": "none",
                "codec_whitelist": ",".join(FFMPEG_DECODERS),
            },
        )
    except av.FFmpegError as error:
        if sniffed.container is Container.MP3 and mpeg.is_one_frame(data, sniffed.offset):
            raise NoSamples("the MP3 stream is one frame without audio") from None
        raise CorruptAudio(f"FFmpeg cannot read this {sniffed.container} file: {error.strerror}") from None


def audio_stream(container: InputContainer) -> AudioStream:
    """The stream that FFmpeg calls the best: the one with most channels, then the highest bit rate.

    Raises:
        NoAudioStream: there is none.
        CodecUnsupportedByProfile: its decoder is not in the table.
    """
    stream = container.streams.best("audio")
    if not isinstance(stream, AudioStream):
        raise NoAudioStream
    context = stream.codec_context
    if context is None or context.name not in FFMPEG_DECODERS:
        name = context.name if context is not None else "unknown"
        raise CodecUnsupportedByProfile(f"audio of codec {name} is not read")
    return stream


def decode_stream(data: bytes, sniffed: Sniffed, limits: Limits) -> Audio:
    """Decode the best audio stream, all channels.

    Damaged packets are left out, and a file that was cut gives what is there. A stream that changes its rate or
    channels on the way is converted to what it began with. Decoding stops when a limit is passed.

    Raises:
        CorruptAudio, NoAudioStream, CodecUnsupportedByProfile, NoSamples, NonFiniteSamples, UnsupportedRate,
        TooManyChannels, TooLong.
    """
    with open_container(data, sniffed) as container:
        stream = audio_stream(container)
        codec = FFMPEG_DECODERS[stream.codec_context.name]
        stream.codec_context.options = dict(_STREAM_OPTIONS)
        if codec == "flac":
            # A damaged frame decodes to noise at full scale, which would decide the peak: its checksum tells.
            stream.codec_context.options["err_detect"] = "crccheck+explode"
        packets = _Packets(container, stream)
        gathered: Gathered | None = None
        rate = channels = 0
        try:
            for frame in _one_layout(packets):
                if gathered is None:
                    rate, channels = frame.sample_rate, frame.layout.nb_channels
                    gathered = Gathered(limits, rate, channels)
                gathered.add(_planar(frame))
        except av.FFmpegError as error:
            raise CorruptAudio(f"FFmpeg cannot decode this {codec} stream: {error.strerror}") from None
        if gathered is None:
            raise (CorruptAudio if packets.damaged else NoSamples)
        samples = gathered.samples()
    return Audio(samples, rate, channels, sniffed.container.value, codec, PYAV, samples.shape[1] / rate)


class _Packets:
    """The frames of a stream, passing over what does not decode."""

    def __init__(self, container: InputContainer, stream: AudioStream) -> None:
        self._container = container
        self._stream = stream
        self.damaged = False
        """Whether anything was passed over."""

    def __iter__(self) -> Iterator[AudioFrame]:
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
                frames = packet.decode()
            except av.FFmpegError:
                self.damaged = True
                continue
            yield from (frame for frame in frames if isinstance(frame, AudioFrame))


def _one_layout(frames: _Packets) -> Iterator[AudioFrame]:
    """The frames, those that differ in rate or channels converted to the first one's."""
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
                raise CorruptAudio(f"the stream changes its rate or channels more than {_MAX_CHANGES} times")
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


def _planar(frame: AudioFrame) -> npt.NDArray[np.float32]:
    """A frame as float32 (channels, n)."""
    raw = frame.to_ndarray()
    if not frame.format.is_planar:
        raw = raw.reshape(-1, frame.layout.nb_channels).T
    return full_scale(raw)
