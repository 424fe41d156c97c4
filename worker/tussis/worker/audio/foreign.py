"""Containers that are recognised by their first bytes but not read, so that the error can name them.

Several of them hold MPEG audio. Without this check the sniffer would find MPEG frames inside them, with packet headers
and video data between the frames.
"""

from __future__ import annotations

from typing import Final

#: Bytes of an MPEG transport stream's packet, and the position of its sync byte: plain, after a timestamp (camcorders),
#: with a checksum.
_TS_PACKETS: Final = ((188, 0), (192, 4), (204, 0))
_TS_SYNC: Final = 0x47
#: Number of packets that must begin with the sync byte. In random bytes, five match once in 10^12.
_TS_CHAIN: Final = 5

BYTES: Final = 1_024
"""Number of bytes of an object that :func:`name` needs."""

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
    """The container's name, for the sentence "this is ..."; None when the container is not recognised."""
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
