"""The container by its content: tags, cut streams, and what must not be taken for audio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import pytest

from tests.support.encoding import encoded
from tests.support.recordings import cough_like
from tussis.shared.errors import CorruptAudio, EmptyObject, NotAudio
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.mpeg import CHAIN, ReadHeader, adts_frame, find_stream, mpeg_frame
from tussis.worker.audio.sniff import SYNC_WINDOW, Container, Sniffed, sniff

VOICE: Final = cough_like(1.0, 16_000)


def id3(size: int, *, footer: bool = False) -> bytes:
    """An ID3v2.4 tag with ``size`` bytes of content."""
    packed = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return (
        b"ID3\x04\x00" + (b"\x10" if footer else b"\0") + packed + bytes(size) + (b"3DI" + bytes(7) if footer else b"")
    )


def mp3() -> bytes:
    """MP3 frames without a tag before them."""
    data = encoded(VOICE, 16_000, "mp3", "libmp3lame")
    return data[sniff(data).offset :]


def adts() -> bytes:
    return encoded(VOICE, 16_000, "adts", "aac")


@pytest.mark.parametrize(
    ("data", "container"),
    [
        (mp3(), Container.MP3),
        (adts(), Container.ADTS),
        (encoded(VOICE, 16_000, "flac", "flac"), Container.FLAC),
        (encoded(VOICE, 16_000, "wav", "pcm_s16le"), Container.WAV),
    ],
    ids=["mp3", "adts", "flac", "wav"],
)
@pytest.mark.parametrize(
    "tags",
    [b"", id3(0), id3(300), id3(1_500_000), id3(200) + id3(100), id3(50, footer=True)],
    ids=["none", "empty", "small", "1.5 MB", "two", "footer"],
)
def test_id3_tags_are_passed_over(data: bytes, container: Container, tags: bytes) -> None:
    assert sniff(tags + data) == Sniffed(container, len(tags))
    plain, tagged = decode(data, Limits()), decode(tags + data, Limits())
    assert np.array_equal(plain.samples, tagged.samples)


def test_padding_behind_a_tag_is_passed_over() -> None:
    assert sniff(id3(100) + bytes(5_000) + mp3()) == Sniffed(Container.MP3, 110 + 5_000)


def test_a_tag_that_is_longer_than_the_object_is_damage() -> None:
    with pytest.raises(CorruptAudio, match="ID3"):
        sniff(id3(300)[:200])


def test_a_tag_with_a_malformed_size_is_rubbish_before_the_audio() -> None:
    tag = b"ID3\x04\0\0\xff\xff\xff\xff" + bytes(100)

    assert sniff(tag + mp3()) == Sniffed(Container.MP3, len(tag))
    with pytest.raises(CorruptAudio, match="malformed"):
        sniff(tag)


@pytest.mark.parametrize(
    ("stream", "container"), [(mp3(), Container.MP3), (adts(), Container.ADTS)], ids=["mp3", "adts"]
)
def test_a_stream_that_begins_inside_a_frame(stream: bytes, container: Container) -> None:
    header = mpeg_frame if container is Container.MP3 else adts_frame
    frame = header(stream, 0)
    assert frame is not None

    assert sniff(stream[10:]) == Sniffed(container, frame.size - 10)


RUBBISH: Final[dict[str, Callable[[int], bytes]]] = {
    "zeros": bytes,
    "noise": np.random.default_rng(3).bytes,
    "a header of HTTP": lambda size: (b"HTTP/1.1 200 OK\r\nX-Filler: " + b"a" * size)[:size],
}


@pytest.mark.parametrize("rubbish", RUBBISH)
@pytest.mark.parametrize("size", [1, 3_000, 5_000, 70_000, SYNC_WINDOW - 1])
@pytest.mark.parametrize(
    ("stream", "container"), [(mp3(), Container.MP3), (adts(), Container.ADTS)], ids=["mp3", "adts"]
)
def test_rubbish_before_a_stream(stream: bytes, container: Container, size: int, rubbish: str) -> None:
    data = RUBBISH[rubbish](size) + stream

    assert sniff(data) == Sniffed(container, size)
    assert np.array_equal(decode(data, Limits()).samples, decode(stream, Limits()).samples)


def test_rubbish_beyond_the_limit_is_not_passed_over() -> None:
    with pytest.raises(NotAudio):
        sniff(bytes(SYNC_WINDOW) + mp3())


@pytest.mark.parametrize("behind", [b"TAG" + bytes(125), b"APETAGEX" + b"a" * 50_000, bytes(50_000), b"<html></html>"])
def test_what_may_stand_behind_a_stream_with_rubbish_before_it(behind: bytes) -> None:
    assert sniff(bytes(100) + mp3() + behind) == Sniffed(Container.MP3, 100)


def test_damage_in_a_stream_with_rubbish_before_it() -> None:
    stream = mp3()
    hole = stream[: len(stream) // 2] + b"lost" * 100 + stream[len(stream) // 2 :]

    assert sniff(bytes(100) + hole) == Sniffed(Container.MP3, 100)


def in_packets(stream: bytes, size: int, head: bytes) -> bytes:
    """As a container without a known beginning would hold the stream."""
    return b"head" + b"".join(head + stream[at : at + size] for at in range(0, len(stream), size))


@pytest.mark.parametrize("size", [500, 2_034, 4_000])
@pytest.mark.parametrize("head", [b"packet", b"a picture of the film " * 30], ids=["header", "picture"])
@pytest.mark.parametrize("stream", [mp3() * 4, adts() * 4], ids=["mp3", "adts"])
def test_frames_inside_an_unknown_container_are_no_stream(stream: bytes, size: int, head: bytes) -> None:
    """Its headers and pictures would be decoded along, and the frames that they cut lost."""
    with pytest.raises(NotAudio):
        sniff(in_packets(stream, size, head))


@pytest.mark.parametrize(
    ("muxer", "name"),
    [
        ("mpeg", "MPEG program stream"),
        ("vob", "MPEG program stream"),
        ("mpegts", "MPEG transport stream"),
        ("avi", "AVI"),
        ("flv", "Flash"),
        ("rm", "RealMedia"),
        ("nut", "NUT"),
    ],
)
def test_containers_that_hold_mpeg_audio_are_refused_by_name(muxer: str, name: str) -> None:
    """A camcorder's program stream was taken for MP3: 2.35 s of 3.00 s, with the film's bytes between the frames."""
    codec, rate_hz = {"flv": ("libmp3lame", 44_100), "rm": ("ac3", 44_100)}.get(muxer, ("mp2", 44_100))
    data = encoded(cough_like(1.0, rate_hz), rate_hz, muxer, codec)

    for before in (b"", id3(30)):
        with pytest.raises(NotAudio, match=name):
            sniff(before + data)


def test_short_mpeg_streams() -> None:
    stream = mp3()
    first = mpeg_frame(stream, 0)
    assert first is not None
    second = mpeg_frame(stream, first.size)
    assert second is not None
    two = first.size + second.size

    assert sniff(stream[:two]).container is Container.MP3
    assert sniff(stream[:two] + b"TAG" + bytes(125)).container is Container.MP3
    assert sniff(stream[: two + 20]).container is Container.MP3
    with pytest.raises(NotAudio):
        sniff(stream[: first.size - 1])
    with pytest.raises(NotAudio):
        sniff(stream[: first.size] + b"no frame")


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ("fffb9064", 417),  # MPEG-1 layer III, 128 kbit/s, 44.1 kHz
        ("fffb9264", 418),  # the same with padding
        ("fff384c4", 192),  # MPEG-2 layer III, 64 kbit/s, 24 kHz
        ("ffe338c4", 216),  # MPEG-2.5 layer III, 24 kbit/s, 8 kHz
        ("fffd8404", 384),  # MPEG-1 layer II, 128 kbit/s, 48 kHz
        ("ffff8404", 256),  # MPEG-1 layer I, 256 kbit/s, 48 kHz
    ],
)
def test_sizes_of_mpeg_frames(header: str, size: int) -> None:
    frame = mpeg_frame(bytes.fromhex(header), 0)

    assert frame is not None
    assert frame.size == size


@pytest.mark.parametrize("header", ["fffbf064", "fffb0064", "fffb9c64", "fff99064", "ffeb9064", "feffffff", "fffb90"])
def test_reserved_values_are_no_mpeg_frame(header: str) -> None:
    assert mpeg_frame(bytes.fromhex(header), 0) is None


def test_raw_gsm_needs_its_marker_on_every_frame() -> None:
    frames = (b"\xd5" + bytes(range(32))) * 10

    assert sniff(frames) == Sniffed(Container.GSM, 0)
    assert sniff(frames + b"\xd5cut") == Sniffed(Container.GSM, 0)
    with pytest.raises(NotAudio):
        sniff(frames[: 33 * 7])
    with pytest.raises(NotAudio):
        sniff(frames[:99] + b"\x05" + frames[100:])


@pytest.mark.parametrize(
    "data",
    [
        b"#EXTM3U\n#EXTINF:1,\nhttp://localhost/a.mp3\n",
        b"\xef\xbb\xbf#EXTM3U\n",
        b"[playlist]\nFile1=http://localhost/a.mp3\n",
        b"ffconcat version 1.0\nfile a.wav\n",
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n",
        b"<?xml version='1.0'?><MPD/>",
        b"<asx version='3.0'></asx>",
        b"<html></html>",
        b"RIFF\x00\x00\x00\x00WEBPVP8 ",
        b"RIFF\x00\x00\x00\x00AVI LIST",
        b"RIFF",
        b"FORM\x00\x00\x00\x008SVX",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0\x00\x10JFIF",
        b"%PDF-1.7",
        b"PK\x03\x04",
        b"\x1f\x8b\x08\x00",
        b"\x7fELF",
        b"ID3\x03\x00",
        b"ID3\x04\0\0\0\0\0\0#EXTM3U\n",
        b"\x00" * 1_000,
        b"\xff" * 1_000,
        b"a",
    ],
)
def test_what_is_not_audio(data: bytes) -> None:
    with pytest.raises(NotAudio) as refusal:
        sniff(data)
    assert str(refusal.value).isprintable()


def test_nothing() -> None:
    with pytest.raises(EmptyObject):
        sniff(b"")


def test_random_bytes_are_not_audio() -> None:
    noise = np.random.default_rng(1)
    for _ in range(300):
        with pytest.raises(NotAudio):
            sniff(noise.bytes(10_000))


@pytest.mark.parametrize("header", [mpeg_frame, adts_frame])
def test_a_stream_of_every_valid_header_is_found(header: ReadHeader) -> None:
    found = 0
    for second in range(256):
        for third in range(256):
            first = bytes((0xFF, second, third, 0x41, 0x7F, 0xFC, 0))
            frame = header(first, 0)
            if frame is None or frame.size < len(first):
                continue
            found += 1
            stream = first.ljust(frame.size, b"\0") * CHAIN
            assert find_stream(b"\xff\0\xff" + stream, 0, 4, header) == 3, first.hex()
            assert find_stream(b"\xff\0\xff" + stream, 0, 3, header) is None, first.hex()
    assert found > 500
