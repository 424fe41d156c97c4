"""Every codec proper, through FFmpeg's libraries as PyAV ships them.

FFmpeg is told everything and guesses nothing: it reads an unnamed buffer in memory, by the one demuxer that the
sniffed container names, may open no protocol at all, and may run no decoder outside the table.
"""

from __future__ import annotations

import io
from typing import Final

import av
import av.logging
from av.audio.stream import AudioStream
from av.container import InputContainer

from tussis.shared.errors import CodecUnsupportedByProfile, CorruptAudio, NoAudioStream, NoSamples
from tussis.worker.audio import mp4, mpeg
from tussis.worker.audio.frames import Frames, one_layout, own_layout, planar
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.samples import Audio, Gathered
from tussis.worker.audio.sniff import Container, Sniffed
from tussis.worker.audio.table import DEMUXERS, FFMPEG_DECODERS, PYAV

# A damaged upload is a result, not something for the worker's standard error.
av.logging.set_level(None)
av.logging.set_libav_level(av.logging.PANIC)

#: Samples a channel in one frame. FLAC's longest has 65 535; an ALAC header may ask for 16 million.
_MAX_FRAME_SAMPLES: Final = 2**17

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
        own_layout(stream.codec_context)
        frames = Frames(container, stream)
        gathered: Gathered | None = None
        rate = channels = 0
        try:
            for frame in one_layout(frames):
                if gathered is None:
                    rate, channels = frame.sample_rate, frame.layout.nb_channels
                    gathered = Gathered(limits, rate, channels)
                gathered.add(planar(frame))
        except av.FFmpegError as error:
            raise CorruptAudio(f"FFmpeg cannot decode this {codec} stream: {error.strerror}") from None
        if gathered is None:
            raise (CorruptAudio if frames.damaged else NoSamples)
        samples = gathered.samples()
    return Audio(samples, rate, channels, sniffed.container.value, codec, PYAV, samples.shape[1] / rate)
