"""Decodes all compressed audio with FFmpeg's libraries, which PyAV includes.

FFmpeg guesses nothing. It reads an unnamed buffer in memory with the one demuxer of the sniffed container. It may open
no protocol, and it may run no decoder that is not in the table.
"""

from __future__ import annotations

import io
from itertools import chain
from typing import Final

import av
import av.logging
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.container import InputContainer

from tussis.shared.errors import AudioError, CodecUnsupportedByProfile, CorruptAudio, NoAudioStream, NoSamples
from tussis.worker.audio import mp4, mpeg
from tussis.worker.audio.frames import Frames, blocks, one_layout, own_layout
from tussis.worker.audio.samples import D, Decoded, Gathering, OpenStream, Source
from tussis.worker.audio.sniff import Container, Sniffed
from tussis.worker.audio.table import DEMUXERS, FFMPEG_DECODERS, PYAV

# A damaged upload becomes a stored failure, so FFmpeg need not write about it on the worker's standard error.
av.logging.set_level(None)
av.logging.set_libav_level(av.logging.PANIC)

#: Most samples a channel in one frame. FLAC's longest frame has 65 535; an ALAC header may state 16 million.
_MAX_FRAME_SAMPLES: Final = 2**17

#: Most other streams that are tried when the best one is silent. This limits the time.
_MAX_OTHER_STREAMS: Final = 8
#: The largest sample of a silent stream: one step of 16-bit audio, which an encoder may make from digital silence.
_SILENCE: Final = 2.0**-15

_STREAM_OPTIONS: Final = {
    "codec_whitelist": ",".join(FFMPEG_DECODERS),
    "max_samples": str(_MAX_FRAME_SAMPLES),
    "threads": "1",
}


def open_container(data: bytes, sniffed: Sniffed) -> InputContainer:
    """Open ``data`` for reading, from its sniffed offset.

    Raises:
        CorruptAudio: FFmpeg finds no structure that it can read, or the structure needs too much memory.
        NoSamples: the file is an MP3 of one frame, which holds the encoder's settings.
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
    """The stream that FFmpeg ranks best: one marked as default, then the one with the highest bit rate.

    Raises:
        NoAudioStream: there is none.
        CodecUnsupportedByProfile: its decoder is not in the table.
    """
    stream = container.streams.best("audio")
    if not isinstance(stream, AudioStream):
        raise NoAudioStream
    check_decoder(stream)
    return stream


def decoder_name(stream: AudioStream) -> str | None:
    """FFmpeg's name of the stream's decoder; None when there is no decoder."""
    # In PyAV a stream without a decoder has no context, which its stub does not declare.
    context: AudioCodecContext | None = stream.codec_context
    return context.name if context is not None else None


def check_decoder(stream: AudioStream) -> None:
    """Raise :class:`CodecUnsupportedByProfile` for a stream whose decoder is not in the table."""
    name = decoder_name(stream)
    if name not in FFMPEG_DECODERS:
        raise CodecUnsupportedByProfile(f"the codec {name or 'unknown'} is not supported")


def decode_stream(data: bytes, sniffed: Sniffed, open_stream: OpenStream[D]) -> D:
    """Decode all channels of the best audio stream, or of the first other stream that is not silent if the best one is.

    Screen recorders write two tracks: one of the computer's own sound, which is usually silent, and one of the
    microphone. Damaged packets are left out. A file that was cut is decoded up to the cut. A stream that changes its
    rate or channels is converted to those of its first frame. Decoding stops when a limit is exceeded.

    Raises:
        CorruptAudio, NoAudioStream, CodecUnsupportedByProfile, NoSamples, NonFiniteSamples, UnsupportedRate,
        TooManyChannels, TooLong.
    """
    with open_container(data, sniffed) as container:
        best = audio_stream(container)
        others = [
            stream.index
            for stream in container.streams.audio
            if stream.index != best.index and decoder_name(stream) in FFMPEG_DECODERS
        ]
        audio: D | None
        try:
            audio = _decoded(container, best, sniffed, open_stream)
        except NoSamples:
            if not others:
                raise
            audio = None
    if others and (audio is None or _is_silent(audio)):
        for index in others[:_MAX_OTHER_STREAMS]:
            with open_container(data, sniffed) as container:
                other = _sounding(container, index, sniffed, open_stream)
            if other is not None:
                return other
    if audio is None:
        raise NoSamples
    return audio


def _sounding(container: InputContainer, index: int, sniffed: Sniffed, open_stream: OpenStream[D]) -> D | None:
    """The stream with this index; None when it is also silent or refused. The best stream's result is kept then."""
    stream = container.streams[index]
    if not isinstance(stream, AudioStream):
        return None
    try:
        audio = _decoded(container, stream, sniffed, open_stream)
    except AudioError:
        return None
    return None if _is_silent(audio) else audio


def _is_silent(audio: Decoded) -> bool:
    return audio.peak <= _SILENCE


def _decoded(container: InputContainer, stream: AudioStream, sniffed: Sniffed, open_stream: OpenStream[D]) -> D:
    codec = FFMPEG_DECODERS[stream.codec_context.name]
    own_layout(stream.codec_context)
    stream.codec_context.options = dict(_STREAM_OPTIONS)
    if codec == "flac":
        # A damaged frame decodes to noise at full scale, which would set the peak. The frame's checksum detects it.
        stream.codec_context.options["err_detect"] = "crccheck+explode"
    frames = Frames(container, stream)
    gathered: Gathering[D] | None = None
    try:
        alike = one_layout(frames)
        if (first := next(alike, None)) is not None:
            source = Source(sniffed.container.value, codec, PYAV)
            gathered = open_stream(first.sample_rate, first.layout.nb_channels, source)
            for block in blocks(chain((first,), alike)):
                gathered.add(block)
    except av.FFmpegError as error:
        raise CorruptAudio(f"FFmpeg cannot decode this {codec} stream: {error.strerror}") from None
    if gathered is None:
        raise (CorruptAudio if frames.damaged else NoSamples)
    return gathered.audio(incomplete=frames.damaged)
