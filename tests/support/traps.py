"""Traps for code that must not open files or connections: a canary file, a listener, and bytes that refer to them.

The kernel watches the canary (inotify), so that an access by a C library or another process is noticed as well as one
by Python. Linux only.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_IN_ACCESS: Final = 0x01
_IN_OPEN: Final = 0x20


@dataclass(frozen=True, slots=True)
class Trap:
    """Active traps."""

    canary: Path
    """The absolute path of the canary, which must not be opened."""
    port: int
    """A TCP port of the loopback interface that must not be connected to."""
    _watch: int
    _listener: socket.socket

    def sprung(self) -> list[str]:
        """Return what was accessed since the last call: ``file``, ``network``."""
        touched = []
        try:
            if os.read(self._watch, 65_536):
                touched.append("file")
        except BlockingIOError:
            pass
        try:
            self._listener.accept()[0].close()
            touched.append("network")
        except BlockingIOError:
            pass
        return touched


@contextmanager
def trap(folder: Path, content: bytes) -> Iterator[Trap]:
    """Set both traps. The canary holds ``content``, so that code that reads it does not fail for another reason."""
    canary = folder / "canary.wav"
    canary.write_bytes(content)
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert watch >= 0, os.strerror(ctypes.get_errno())
    assert libc.inotify_add_watch(watch, os.fsencode(canary), _IN_OPEN | _IN_ACCESS) >= 0
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            listener.setblocking(False)
            yield Trap(canary, listener.getsockname()[1], watch, listener)
    finally:
        os.close(watch)


def lures(armed: Trap, movie: bytes) -> dict[str, bytes]:
    """Return hostile objects by name. ``movie`` is a QuickTime file whose header follows its data."""
    url = f"http://127.0.0.1:{armed.port}/a.mp3"
    playlist = hls(url) + hls(str(armed.canary))
    script = f"ffconcat version 1.0\nfile '{armed.canary}'\nfile '{url}'\n".encode()
    session = (
        f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {armed.port} RTP/AVP 0\r\n"
    ).encode()
    manifest = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
        f'<AdaptationSet mimeType="audio/mp4"><BaseURL>{url}</BaseURL><Representation id="1" bandwidth="1"/>'
        "</AdaptationSet></Period></MPD>"
    ).encode()
    tag = b"ID3\x04\0\0\0\0\0\x00"
    return {
        "playlist": playlist,
        "playlist behind a tag": tag + playlist,
        "playlist in a WAV header": b"RIFF\xff\xff\xff\xffWAVE" + playlist,
        "playlist in an MP4 header": struct.pack(">I4s", 8, b"ftyp") + playlist,
        "playlist in an Ogg header": b"OggS" + playlist,
        "playlist in a Matroska header": b"\x1a\x45\xdf\xa3" + playlist,
        "playlist in an AMR header": b"#!AMR\n" + playlist,
        "concat script": script,
        "concat script behind a tag": tag + script,
        "session description": session,
        "DASH manifest": manifest,
        "QuickTime with an external track": external_track(movie, str(armed.canary)),
        "QuickTime with a remote track": external_track(movie, url),
    }


def hls(segment: str) -> bytes:
    """Return a playlist of one segment."""
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{segment}\n#EXT-X-ENDLIST\n".encode()


def external_track(movie: bytes, path: str) -> bytes:
    """Return the QuickTime file with ``path`` as the place of its samples: an alias in the data reference box."""
    rebuilt = b""
    start = 0
    while start + 8 <= len(movie):
        size, kind = struct.unpack_from(">I4s", movie, start)
        content = movie[start + 8 : start + size]
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
            content = external_track(content, path)
        elif kind == b"dref":
            content = struct.pack(">II", 0, 1) + _alias(path)
        rebuilt += struct.pack(">I4s", 8 + len(content), kind) + content
        start += size
    return rebuilt


def _alias(path: str) -> bytes:
    name = path.encode() + b"\0" * (len(path) % 2)
    record = bytes(10 + 1 + 27 + 12 + 1 + 63 + 16) + struct.pack(">hh", -1, -1) + bytes(16)
    record += struct.pack(">HH", 2, len(name)) + name + struct.pack(">hH", -1, 0)
    record = record.ljust(180, b"\0")
    return struct.pack(">I4sI", 12 + len(record), b"alis", 0) + record
