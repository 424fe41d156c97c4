"""The entry point of decoding: bytes become float32 samples, or an error with a name is raised."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from tussis.shared.dsp.profiles import Decoder
from tussis.worker.audio.gathered import Gathered
from tussis.worker.audio.legacy import decode_with_pydub
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.native import decode_native, examine, is_incomplete
from tussis.worker.audio.samples import Audio, Listen, Tick


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
    if decoder is Decoder.PYDUB:
        sniffed, header, source = examine(data, limits)
        if header is not None and header.frames is not None:
            limits.check_whole(header.frames, header.channels)
        audio = decode_with_pydub(source, sniffed, header, limits)
        incomplete = is_incomplete(data, sniffed, header, audio.duration_s, audio.incomplete)
    else:
        audio, incomplete = decode_native(data, limits, partial(Gathered, limits, tick=tick, listen=listen))
    return replace(audio, incomplete=incomplete)
