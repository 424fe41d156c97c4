"""Files as recorders, browsers and download tools write them, from reports of users. All hold the same sound."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from tests.support.encoding import interleaved, muxed
from tests.support.recordings import cough_like

SECONDS: Final = 1.0
_RATE_HZ: Final = 48_000


def chunk(name: bytes, content: bytes, *, padded: bool = True) -> bytes:
    """Return a RIFF chunk."""
    return name + struct.pack("<I", len(content)) + content + (b"\0" if padded and len(content) % 2 else b"")


def form(tag: int = 1, bits: int = 16, *, align: int | None = None, channels: int = 1, extra: bytes = b"") -> bytes:
    """Return a format chunk."""
    align = channels * bits // 8 if align is None else align
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, _RATE_HZ, _RATE_HZ * align, align, bits) + extra)


def riff(*chunks: bytes) -> bytes:
    """Return a WAV file."""
    content = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def _extension(bits: int, guid: str) -> bytes:
    return struct.pack("<HHI", 22, bits, 0) + bytes.fromhex(guid)


_PCM: Final = "0100000000001000800000aa00389b71"
_AMBISONIC: Final = "010000002107d3118644c8c1ca000000"


def wav_files() -> Iterator[tuple[str, bytes]]:
    """Yield WAV files with unusual chunks and formats."""
    voice = cough_like(SECONDS, _RATE_HZ)
    plain = interleaved(np.round(voice * 32_767).astype("<i2"))
    data = chunk(b"data", plain)
    wide = np.round(voice[0] * (2**23 - 1)).astype("<i4")
    three = wide.view("u1").reshape(-1, 4)[:, :3].tobytes()
    yield "list-of-zeros.wav", riff(form(), chunk(b"LIST", bytes(393_164)), data)
    yield "odd-list.wav", riff(form(), chunk(b"LIST", b"INFOICMT\5\0\0\0hello"), data)
    yield "tag-behind.wav", riff(form(), data, chunk(b"id3 ", b"ID3\3\0\0\0\0\0\x10" + bytes(16)))
    yield "form-boundary-behind.wav", riff(form(), data) + b"\r\n--boundary--\r\n"
    yield "half-a-sample-behind.wav", riff(form(), chunk(b"data", plain + b"\1"))
    yield "size-of-file.wav", riff(form(), b"data" + struct.pack("<I", len(plain) + 44) + plain)
    yield "wrong-byte-rate.wav", riff(chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, _RATE_HZ, 1, 2, 16)), data)
    yield "20-in-24.wav", riff(form(0xFFFE, 24, extra=_extension(20, _PCM)), chunk(b"data", three))
    yield "12-bit.wav", riff(form(1, 12, align=2), data)
    yield "float64.wav", riff(form(3, 64), chunk(b"data", interleaved(voice.astype("<f8"))))
    yield (
        "ambisonic.wav",
        riff(
            form(0xFFFE, 16, channels=4, extra=_extension(16, _AMBISONIC)),
            chunk(b"data", np.repeat(np.frombuffer(plain, "<i2"), 4).tobytes()),
        ),
    )
    yield "length-0.wav", riff(form(), b"data\0\0\0\0" + plain)
    yield "length-0-filler.wav", riff(form(), chunk(b"FLLR", bytes(4_008)), b"data\0\0\0\0" + plain)
    yield "length-ff.wav", riff(form(), b"data\xff\xff\xff\xff" + plain)
    yield "format-behind.wav", riff(data, form())
    yield "two-sounds.wav", riff(form(), data, chunk(b"LIST", b"INFO"), data)
    yield "format-cut.wav", riff(chunk(b"fmt ", struct.pack("<HHIIH", 1, 1, _RATE_HZ, 2 * _RATE_HZ, 2)), data)
    yield "int64.wav", riff(form(1, 64), chunk(b"data", np.round(voice * 2.0**62).astype("<i8").tobytes()))
    yield "not-a-number.wav", riff(form(3, 32), chunk(b"data", struct.pack("<f", float("nan")) + bytes(400)))
    yield "ultrasound.wav", riff(form(), data).replace(struct.pack("<I", _RATE_HZ), struct.pack("<I", 384_000))


def encoded_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield compressed files: fragments, cut files, leading garbage, offsets, and containers that are not supported."""
    voice = cough_like(SECONDS, _RATE_HZ)

    def made(name: str, codec: str, *options: str, samples: npt.NDArray[np.float32] = voice) -> bytes:
        return muxed(folder / name, _RATE_HZ, (samples, codec), options=options)

    mp3 = made("plain.mp3", "libmp3lame", "-write_xing", "0", "-id3v2_version", "0")
    yield "plain.mp3", mp3
    yield "zeros-before.mp3", bytes(70_000) + mp3
    yield "cut-tag-before.mp3", b"ID3\4\0\0\xff\xff\xff\xff" + b"a" * 300 + mp3
    m4a = made("plain.m4a", "aac", "-movflags", "+faststart")
    yield "plain.m4a", m4a
    yield "cut.m4a", m4a[: len(m4a) * 2 // 3]
    yield "no-index.m4a", m4a[: m4a.index(b"moov") - 4]
    fragments = made("fragments.mp4", "aac", "-movflags", "+frag_keyframe+empty_moov", "-frag_duration", "300000")
    yield "fragments.mp4", fragments
    yield "fragments-without-header.m4s", fragments[fragments.index(b"moof") - 4 :]
    yield "offset.mov", made("offset.mov", "aac", "-output_ts_offset", "2")
    live = made("live.webm", "libopus", "-live", "1", "-cluster_time_limit", "200")
    cluster = b"\x1f\x43\xb6\x75"
    yield "live.webm", live
    yield "live-cut.webm", live[: len(live) * 2 // 3]
    yield "second-chunk.webm", live[live.index(cluster, live.index(cluster) + 4) :]
    opus = made("plain.ogg", "libopus")
    yield "chained.ogg", opus + made("voip.ogg", "libopus", "-b:a", "16k", "-application", "voip")
    yield "plain.amr", muxed(folder / "plain.amr", 8_000, (cough_like(SECONDS, 8_000), "libopencore_amrnb"))
    caf = made("plain.caf", "pcm_s16le")
    at = caf.index(b"data") + 4
    yield "to-the-end.caf", caf[:at] + b"\xff" * 8 + caf[at + 8 :]
    yield "surround.m4a", made("surround.m4a", "aac", samples=cough_like(SECONDS, _RATE_HZ, channels=8))
    yield "surround.webm", made("surround.webm", "libvorbis", samples=cough_like(SECONDS, _RATE_HZ, channels=8))
    yield "dolby.mp4", made("dolby.mp4", "eac3")
    for suffix, codec in (("mpg", "mp2"), ("vob", "mp2"), ("ts", "aac"), ("avi", "libmp3lame"), ("flv", "aac")):
        yield f"film.{suffix}", made(f"film.{suffix}", codec)
    yield "plain.wv", made("plain.wv", "wavpack")
    yield "broadcast.latm", made("broadcast.latm", "aac")
