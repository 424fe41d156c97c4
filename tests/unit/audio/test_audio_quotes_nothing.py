"""An error about an object quotes none of its bytes: it may be a file of patients under the wrong name."""

from __future__ import annotations

import gzip
import io
import wave

import pytest

from tussis.shared.dsp.profiles import profile_named
from tussis.shared.errors import CorruptAudio, TussisError
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.pipeline import object_bytes

SECRET = b"Erika Mustermann, Berlin"
#: No part of it that is as long as this may be quoted.
PART = 4


def _wav(frames: bytes = bytes(3200)) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes(frames)
    return file.getvalue()


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + len(body).to_bytes(4, "little") + body


_WAV = _wav()
OBJECTS = {
    "the object": SECRET * 40,
    "after an ID3 tag": b"ID3\x04\x00\x00\x00\x00\x00\x00" + SECRET * 40,
    "in an ID3 tag": b"ID3\x04\x00\x00\x00\x00\x02\x00TIT2" + SECRET * 40,
    "the codec": _WAV[:20] + SECRET[:16] + _WAV[36:],
    "a chunk before fmt": b"RIFF\xff\xff\xff\x7fWAVE" + _chunk(b"LIST", SECRET) + _chunk(SECRET[:4], SECRET),
    "the name of a chunk": b"RIFF\xff\xff\xff\x7fWAVE" + SECRET * 10,
    "flac": b"fLaC" + SECRET * 40,
    "ogg": b"OggS" + SECRET * 40,
    "mp4": b"\x00\x00\x00\x18ftyp" + SECRET * 40,
    "mp4 box": b"\x00\x00\x00\x18ftypM4A \x00\x00\x00\x00M4A mp42" + b"\x00\x00\x01\x00moov" + SECRET * 40,
    "matroska": b"\x1a\x45\xdf\xa3" + SECRET * 40,
    "aiff": b"FORM\x00\x00\x10\x00AIFFCOMM" + SECRET * 40,
    "caf": b"caff\x00\x01\x00\x00desc" + SECRET * 40,
    "au": b".snd" + SECRET * 40,
    "mp3": b"\xff\xfb\x90\x64" + SECRET * 60,
}


def assert_not_quoted(text: str) -> None:
    for at in range(len(SECRET) - PART + 1):
        part = SECRET[at : at + PART]
        for form in (part.decode(), part.hex(), part.hex(" "), repr(list(part))[1:-1]):
            assert form not in text, text


@pytest.mark.parametrize("profile", ["documented", "legacy"])
@pytest.mark.parametrize("name", OBJECTS)
def test_no_error_about_an_object_quotes_it(name: str, profile: str) -> None:
    with pytest.raises(TussisError) as caught:
        decode(OBJECTS[name], Limits(), profile_named(profile).decoder)
    assert_not_quoted(str(caught.value))


@pytest.mark.parametrize("tail", [SECRET, b"\x1f\x8b" + SECRET * 4, b""])
def test_no_error_about_compressed_bytes_quotes_them(tail: bytes) -> None:
    whole = gzip.compress(SECRET * 9)
    data = whole + tail if tail else whole[:-12]
    with pytest.raises(CorruptAudio) as caught:
        object_bytes.decoded(data, "gzip", "s3://clinic/a.wav", 1_000_000)
    assert_not_quoted(str(caught.value))
    assert "b'" not in str(caught.value)
