"""Finds the container in the content of the bytes. Names and declared types are not used, because they can be wrong.

Every unknown format is refused here, before a parser of a codec library reads it. That includes playlists, session
descriptions and concat scripts, which could make FFmpeg open any address or file that their author chose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tussis.shared.errors import CorruptAudio, EmptyObject, NotAudio
from tussis.worker.audio import foreign, mpeg


class Container(StrEnum):
    """The containers that are accepted."""

    WAV = "wav"
    RF64 = "rf64"
    W64 = "w64"
    AIFF = "aiff"
    AU = "au"
    CAF = "caf"
    FLAC = "flac"
    OGG = "ogg"
    MP3 = "mp3"
    ADTS = "adts"
    MP4 = "mp4"
    MATROSKA = "matroska"
    AMR = "amr"
    ASF = "asf"
    GSM = "gsm"


@dataclass(frozen=True, slots=True)
class Sniffed:
    """A container, and its offset: after ID3 tags, and after the partial frame at the start of a cut stream."""

    container: Container
    offset: int


_W64_RIFF: Final = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_W64_WAVE: Final = bytes.fromhex("77617665f3acd3118cd100c04f8edb8a")
_ASF_HEADER: Final = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")

#: Types of the first box in a file of the MP4 family: all brands, old QuickTime without ``ftyp``, and fragments.
_MP4_FIRST_BOXES: Final = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof"})

_GSM_FRAME_BYTES: Final = 33
#: Number of frames that must have GSM's marker. In random bytes, eight match once in four billion.
_GSM_FRAMES: Final = 8
#: Most frames that are checked, so that the time does not grow with the object.
_GSM_FRAMES_LOOKED_AT: Final = 4_096

#: Bytes within which the first frame of an MPEG stream must begin. A stream that was cut begins inside a frame.
#: Encoders write padding after an ID3 tag. Recorders and download tools write zeros, their own headers or part of a
#: picture before the audio.
SYNC_WINDOW: Final = 131_072


def sniff(data: bytes) -> Sniffed:
    """Name the container of ``data``.

    Raises:
        EmptyObject: there are no bytes.
        CorruptAudio: an ID3 tag states an end beyond the object, or has a malformed size and no audio after it.
        NotAudio: the bytes are not a container that is accepted.
    """
    if not data:
        raise EmptyObject
    offset = _behind_id3(data)
    for container, matches in _MAGIC.items():
        if matches(data, offset):
            return Sniffed(container, offset)
    known = foreign.name(data[offset : offset + foreign.BYTES])
    if known is not None:
        raise NotAudio(f"this is {known}, which is not supported")
    for container, header in ((Container.ADTS, mpeg.adts_frame), (Container.MP3, mpeg.mpeg_frame)):
        start = mpeg.find_stream(data, offset, SYNC_WINDOW, header)
        if start is not None and (start == offset or mpeg.goes_on(data, start, header)):
            return Sniffed(container, start)
    if _is_gsm(data, offset):
        return Sniffed(Container.GSM, offset)
    if data.startswith(b"ID3", offset) and offset + 10 <= len(data):
        raise CorruptAudio(
            f"the ID3 tag at byte {offset} has a malformed size, and no audio follows in the next {SYNC_WINDOW} bytes"
        )
    # Not the bytes: an object that is no recording may be anything, such as a file of patients.
    raise NotAudio(f"the {len(data)} bytes are not in a supported audio container")


def _behind_id3(data: bytes) -> int:
    """The position after the ID3v2 tags. Some files have several."""
    offset = 0
    while data[offset : offset + 3] == b"ID3" and offset + 10 <= len(data):
        size = 0
        for byte in data[offset + 6 : offset + 10]:
            if byte & 0x80:
                return offset  # its size is malformed: the tag is garbage before the audio, if there is audio
            size = size << 7 | byte
        has_footer = bool(data[offset + 5] & 0x10)
        end = offset + 10 + size + (10 if has_footer else 0)
        if end > len(data):
            raise CorruptAudio(f"an ID3 tag states its end at byte {end} of an object of {len(data)} bytes")
        offset = end
    return offset


def _riff(*kinds: bytes) -> Callable[[bytes, int], bool]:
    return lambda data, at: data[at : at + 4] in kinds and data[at + 8 : at + 12] == b"WAVE"


def _starts(*magic: bytes) -> Callable[[bytes, int], bool]:
    return lambda data, at: data.startswith(magic, at)


def _is_w64(data: bytes, at: int) -> bool:
    return data.startswith(_W64_RIFF, at) and data.startswith(_W64_WAVE, at + 24)


def _is_aiff(data: bytes, at: int) -> bool:
    return data.startswith(b"FORM", at) and data[at + 8 : at + 12] in (b"AIFF", b"AIFC")


def _is_mp4(data: bytes, at: int) -> bool:
    size = int.from_bytes(data[at : at + 4], "big")
    # 0: to the end of the file; 1: a 64-bit size follows.
    return data[at + 4 : at + 8] in _MP4_FIRST_BOXES and (size in (0, 1) or size >= 8)


def _is_gsm(data: bytes, at: int) -> bool:
    """Whether raw GSM 06.10 begins at ``at``. It has no header; every frame of 33 bytes begins with the nibble 0xD."""
    markers = data[at : at + _GSM_FRAMES_LOOKED_AT * _GSM_FRAME_BYTES : _GSM_FRAME_BYTES]
    return len(markers) >= _GSM_FRAMES and all(marker >> 4 == 0xD for marker in markers)


_MAGIC: Final[dict[Container, Callable[[bytes, int], bool]]] = {
    Container.WAV: _riff(b"RIFF", b"RIFX"),
    Container.RF64: _riff(b"RF64", b"BW64"),
    Container.W64: _is_w64,
    Container.AIFF: _is_aiff,
    Container.AU: _starts(b".snd"),
    Container.CAF: _starts(b"caff\x00\x01"),
    Container.FLAC: _starts(b"fLaC"),
    Container.OGG: _starts(b"OggS"),
    Container.MP4: _is_mp4,
    Container.MATROSKA: _starts(b"\x1a\x45\xdf\xa3"),
    Container.AMR: _starts(b"#!AMR\n", b"#!AMR-WB\n"),
    Container.ASF: _starts(_ASF_HEADER),
}
