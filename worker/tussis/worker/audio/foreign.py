"""Containers that are known and not read, by their first bytes: so that a refusal can name them.

Several hold MPEG audio, whose frames would otherwise be found inside them, with the packets' headers and the film's
pictures between the frames.
"""

from __future__ import annotations

from typing import Final

#: Bytes of an MPEG transport stream's packet, and where its sync byte is: plain, behind a timestamp (camcorders), with
#: a checksum.
_TS_PACKETS: Final = ((188, 0), (192, 4), (204, 0))
_TS_SYNC: Final = 0x47
#: Packets that must begin with the sync byte: five chance hits are one in 10^12.
_TS_CHAIN: Final = 5

BYTES: Final = 1_024
"""Bytes of an object that :func:`name` looks at."""

_MAGIC: Final = (
    (b"\x00\x00\x01\xba", "an MPEG program stream (MPG, VOB)"),
    (b"\x00\x00\x01\xb3", "an MPEG video stream"),
    (b"FLV\x01", "Flash video"),
    (b".RMF", "RealMedia"),
    (b".ra\xfd", "RealAudio"),
    (b"wvpk", "WavPack"),
    (b"MAC ", "Monkey's Audio"),
    (b"TTA", "True Audio"),
    (b"MPCK", "Musepack"),
    (b"MP+", "Musepack"),
    (b"DSD ", "DSD audio"),
    (b"FRM8", "DSD audio"),
    (b"MThd", "MIDI"),
    (b"nut/multimedia container\x00", "NUT"),
    (b"\x06\x0e\x2b\x34", "MXF"),
    (b"\x7f\xfe\x80\x01", "raw DTS"),
)
_RIFF_KINDS: Final = {
    b"AVI ": "AVI",
    b"AVIX": "AVI",
    b"WEBP": "a WebP picture",
    b"RMID": "MIDI",
}


def name(data: bytes) -> str | None:
    """What the object is, for the sentence "it is ..."; None where nothing is known of it."""
    if data[:4] == b"RIFF" and data[8:12] in _RIFF_KINDS:
        return _RIFF_KINDS[data[8:12]]
    for magic, what in _MAGIC:
        if data.startswith(magic):
            return what
    for size, start in _TS_PACKETS:
        syncs = data[start : start + size * _TS_CHAIN : size]
        if len(syncs) == _TS_CHAIN and all(byte == _TS_SYNC for byte in syncs):
            return "an MPEG transport stream (TS, M2TS)"
    return None
