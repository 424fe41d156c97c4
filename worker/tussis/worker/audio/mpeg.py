"""Frame headers of MPEG audio and ADTS streams, which have no magic number: only a chain of frames identifies them.

Layouts: ISO/IEC 11172-3 section 2.4.1.3 and 13818-3 for MPEG audio, 14496-3 section 1.A.2 for ADTS.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

CHAIN: Final = 4
"""Number of consecutive frames of one kind that identify a stream; each begins where the one before ends. In random
bytes about one position in 4 000 has a valid header. Four chained frames were never seen."""


class Frame(NamedTuple):
    """The content of a frame header."""

    size: int
    """Bytes, header included."""
    kind: tuple[int, ...]
    """The values that all frames of one stream share: version, layer, rate."""


ReadHeader = Callable[[bytes, int], Frame | None]

_V1, _V2, _V25 = 3, 2, 0
_LAYER1, _LAYER2, _LAYER3 = 3, 2, 1
_RATES: Final = {_V1: (44_100, 48_000, 32_000), _V2: (22_050, 24_000, 16_000), _V25: (11_025, 12_000, 8_000)}
_KBITS: Final = {
    (_V1, _LAYER1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (_V1, _LAYER2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (_V1, _LAYER3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (_V2, _LAYER1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (_V2, _LAYER2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HEADER_BYTES: Final = 4
#: The ID3v1 tag, at the end of the file.
_ID3V1: Final = b"TAG"
#: All tags that may follow the audio.
_TAGS: Final = (_ID3V1, b"APETAGEX", b"LYRICSBEGIN", b"ID3", b"3DI")

LONGEST_FRAME: Final = 2_881
"""Bytes of a frame of MPEG-2.5 layer II at 160 kbit/s and 8 kHz, with padding."""
_FRAMES_LOOKED_AT: Final = 1_024
_FRAMES_A_BREAK: Final = 64


def mpeg_frame(data: bytes, at: int) -> Frame | None:
    """The MPEG-1, 2 or 2.5 audio frame at ``at``; None when there is none, or when its bit rate is free."""
    if at + _HEADER_BYTES > len(data) or data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return None
    version = data[at + 1] >> 3 & 3
    layer = data[at + 1] >> 1 & 3
    bit_rate = data[at + 2] >> 4
    rate = data[at + 2] >> 2 & 3
    if version == 1 or layer == 0 or bit_rate in (0, 15) or rate == 3:
        return None
    # In MPEG-2, layer III has the bit rates of layer II. MPEG-2.5 has the bit rates of MPEG-2.
    table = (version, layer) if version == _V1 else (_V2, min(max(layer, _LAYER2), _LAYER1))
    bits = _KBITS[table][bit_rate - 1] * 1_000
    hertz = _RATES[version][rate]
    padding = data[at + 2] >> 1 & 1
    if layer == _LAYER1:
        size = (12 * bits // hertz + padding) * 4
    else:
        halved = layer == _LAYER3 and version != _V1
        size = (72 if halved else 144) * bits // hertz + padding
    return Frame(size, (version, layer, rate))


def adts_frame(data: bytes, at: int) -> Frame | None:
    """The ADTS frame at ``at``, or None."""
    if at + 7 > len(data) or data[at] != 0xFF or data[at + 1] & 0xF6 != 0xF0:
        return None
    rate = data[at + 2] >> 2 & 0xF
    size = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
    if rate > 12 or size < 7:
        return None
    return Frame(size, (data[at + 1] >> 3 & 1, rate))


#: The first two bytes of a valid header: the sync word, and the values of the second byte that are not reserved.
_SYNC: Final[dict[ReadHeader, re.Pattern[bytes]]] = {
    mpeg_frame: re.compile(rb"\xff(?=[\xe2-\xe7\xf2-\xf7\xfa-\xff])"),
    adts_frame: re.compile(rb"\xff(?=[\xf0\xf1\xf8\xf9])"),
}


def find_stream(data: bytes, start: int, window: int, header: ReadHeader) -> int | None:
    """The position within ``window`` bytes of ``start`` at which a stream of frames begins, or None.

    :data:`CHAIN` frames identify a stream. A shorter chain is a stream when it begins exactly at ``start`` and reaches
    the end of the data.
    """
    # One byte more than the window: a header has to begin in it, and the pattern looks at the byte after its first.
    for sync in _SYNC[header].finditer(data, start, start + window + 1):
        at = sync.start()
        frames, reaches_end = _chain(data, at, header)
        if frames >= CHAIN or (at == start and frames >= 1 and reaches_end):
            return at
    return None


def goes_on(data: bytes, start: int, header: ReadHeader) -> bool:
    """Whether the stream at ``start`` continues to the end of the data.

    A stream with garbage before it does. In another container there are packet headers and pictures between the frames.
    Damage may break the stream once, and once more for every :data:`_FRAMES_A_BREAK` frames. After the last frame there
    may be a tag, zeros, or a little garbage. Only the first :data:`_FRAMES_LOOKED_AT` frames are checked.
    """
    at, frames, breaks = start, 0, 0
    while frames < _FRAMES_LOOKED_AT:
        frame = header(data, at)
        if frame is not None:
            at += frame.size
            frames += 1
            if at >= len(data):
                return True
            continue
        following = find_stream(data, at, LONGEST_FRAME, header)
        if following is None:
            return _is_tail(data, at, start)
        breaks += 1
        if breaks > 1 + frames // _FRAMES_A_BREAK:
            return False
        at = following
    return True


def _is_tail(data: bytes, at: int, start: int) -> bool:
    """Whether only a tag, zeros, or little garbage follows: one long frame or a twentieth of the stream at most."""
    rest = len(data) - at
    little = max(LONGEST_FRAME, (at - start) // 20)
    return rest <= little or data.startswith(_TAGS, at) or data.count(0, at) == rest


def is_one_frame(data: bytes, start: int) -> bool:
    """Whether the MPEG stream at ``start`` is a single frame, which usually has only the encoder's settings."""
    return _chain(data, start, mpeg_frame)[0] == 1


def _chain(data: bytes, at: int, header: ReadHeader) -> tuple[int, bool]:
    """Number of consecutive frames from ``at`` (at most CHAIN), and whether they reach the end of the data.

    They reach it when they end exactly there or at a final tag, or when the last frame is cut off after a whole one.
    """
    count = 0
    kind: tuple[int, ...] | None = None
    while count < CHAIN:
        frame = header(data, at)
        if frame is None or (kind is not None and frame.kind != kind):
            break
        kind = frame.kind
        at += frame.size
        if at > len(data):
            return count, count > 0
        count += 1
    return count, at == len(data) or data.startswith(_ID3V1, at)
