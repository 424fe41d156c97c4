"""The entry point of decoding: bytes become float32 samples, or an error with a name is raised."""

from __future__ import annotations

from dataclasses import replace

from tussis.shared.dsp.profiles import Decoder
from tussis.worker.audio.headers import read_header
from tussis.worker.audio.legacy import decode_with_pydub
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.pyav_decoder import decode_stream
from tussis.worker.audio.samples import Audio, Listen, Tick
from tussis.worker.audio.sniff import sniff
from tussis.worker.audio.soundfile_decoder import decode_uncompressed
from tussis.worker.audio.truncation import is_truncated
from tussis.worker.audio.unfinished import finished


def decode(
    data: bytes,
    limits: Limits,
    decoder: Decoder = Decoder.NATIVE,
    tick: Tick = lambda: None,
    listen: Listen | None = None,
) -> Audio:
    """Decode a recording.

    No content of ``data`` can open a file or a connection. ``Decoder.PYDUB`` runs an ``ffmpeg`` process, which cannot
    open any either. The limits bound the memory. The order of the checks is size, container, header, then samples as
    they are decoded.

    Args:
        data: the whole object.
        limits: the largest recording that is accepted.
        decoder: the profile's decoder. ``NATIVE`` returns float samples of all channels. ``PYDUB`` returns the input
            of the ``legacy`` profile: mixed to one channel as integers and scaled by their width.
        tick: called after every minute of decoded audio. It may raise, to end the decoding.
        listen: makes the listener of each stream that is decoded, for ``NATIVE`` only. :attr:`Audio.listener` is that
            of the stream whose samples are returned.

    Returns:
        The samples, float32 (channels, n) with full scale 1.0, and a description of their source. A recording of more
        than ``limits.whole_bytes`` of samples is mixed and resampled while it is decoded: see :class:`Audio`.

    Raises:
        ObjectTooLarge: the object is larger than ``limits.max_bytes``.
        AudioError: one of its subclasses, which ``docs/formats.md`` lists.
    """
    limits.check_size(len(data))
    sniffed = sniff(data)
    header = read_header(sniffed.container, data, sniffed.offset)
    source = data
    if header is not None:
        limits.check_layout(header.rate_hz, header.channels)
        if header.frames is not None:
            limits.check_length(header.frames, header.rate_hz, header.channels)
            if decoder is Decoder.PYDUB:
                limits.check_whole(header.frames, header.channels)
        if header.uncompressed:
            source = finished(data, sniffed.container, sniffed.offset)
    if decoder is Decoder.PYDUB:
        audio = decode_with_pydub(source, sniffed, header, limits)
    elif header is not None and header.uncompressed:
        audio = decode_uncompressed(source[sniffed.offset :], sniffed.container, limits, tick, listen)
    else:
        audio = decode_stream(source, sniffed, limits, tick, listen)
    is_short = header is not None and header.frames is not None and audio.duration_s < header.frames / header.rate_hz
    return replace(
        audio, incomplete=audio.incomplete or is_short or is_truncated(data, sniffed.container, sniffed.offset)
    )
