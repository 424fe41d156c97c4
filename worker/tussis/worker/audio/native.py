"""The native decoders: sniffing, header, limits, then libsndfile or FFmpeg. The samples go to streams as blocks.

This module imports no torch, because the decoder process of :mod:`tussis.worker.audio.jail` imports it.
"""

from __future__ import annotations

from tussis.worker.audio.canonical import canonical
from tussis.worker.audio.headers import Header, read_header
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.pyav_decoder import decode_stream
from tussis.worker.audio.samples import D, OpenStream
from tussis.worker.audio.sniff import Sniffed, sniff
from tussis.worker.audio.soundfile_decoder import decode_uncompressed
from tussis.worker.audio.truncation import is_truncated
from tussis.worker.audio.unfinished import finished


def decode_native(data: bytes, limits: Limits, open_stream: OpenStream[D]) -> tuple[D, bool]:
    """Decode a recording.

    Returns:
        What ``open_stream`` made of the stream whose samples count, and whether audio is missing.

    Raises:
        AudioError, ObjectTooLarge: as :func:`~tussis.worker.audio.decode.decode`.
    """
    sniffed, header, source = examine(data, limits)
    if header is not None and header.uncompressed:
        decoded = decode_uncompressed(
            canonical(source, sniffed.container, sniffed.offset), sniffed.container, limits, open_stream
        )
    else:
        decoded = decode_stream(source, sniffed, open_stream)
    return decoded, is_incomplete(data, sniffed, header, decoded.duration_s, decoded.incomplete)


def examine(data: bytes, limits: Limits) -> tuple[Sniffed, Header | None, bytes]:
    """The container, its header and the bytes to decode, with the limits checked as far as the header states them."""
    limits.check_size(len(data))
    sniffed = sniff(data)
    header = read_header(sniffed.container, data, sniffed.offset)
    source = data
    if header is not None:
        limits.check_layout(header.rate_hz, header.channels)
        if header.frames is not None:
            limits.check_length(header.frames, header.rate_hz, header.channels)
        if header.uncompressed:
            source = finished(data, sniffed.container, sniffed.offset)
    return sniffed, header, source


def is_incomplete(data: bytes, sniffed: Sniffed, header: Header | None, duration_s: float, found: bool) -> bool:
    """Whether audio is missing. ``found``: the decoder has found out. ``duration_s``: seconds that were decoded."""
    is_short = header is not None and header.frames is not None and duration_s < header.frames / header.rate_hz
    return found or is_short or is_truncated(data, sniffed.container, sniffed.offset)
