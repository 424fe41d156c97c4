"""Many channels, and speakers in an order of their own: decoded or refused, in a process that lives on.

PyAV ended the process by a signal for both, so the files are decoded in a process of their own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
import pytest

from tests.support.encoding import muxed
from tests.support.recordings import cough_like

#: Decodes files by both decoders; prints what comes out and stores the mean of the channels beside the file.
DECODE: Final = """
import sys
from pathlib import Path
import numpy as np
from tussis.shared.dsp.profiles import Decoder
from tussis.shared.errors import AudioError
from tussis.worker.audio import pyav_decoder
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits

before, most_channels, *paths = sys.argv[1:]
exec(before)
for path in map(Path, paths):
    for decoder in Decoder:
        print(path.name, decoder.value, end=" ", flush=True)
        try:
            audio = decode(path.read_bytes(), Limits(max_channels=int(most_channels)), decoder)
        except AudioError as error:
            print(error.error_class, flush=True)
        else:
            np.save(f"{path}.{decoder.value}.npy", audio.samples.mean(axis=0))
            print(audio.codec, audio.channels, audio.rate_hz, flush=True)
"""


def outcomes(*paths: Path, most_channels: int = 8, before: str = "") -> list[str]:
    """What one fresh process prints: for each file a line a decoder, "NAME DECODER CODEC CHANNELS RATE"."""
    done = subprocess.run(
        [sys.executable, "-c", DECODE, before, str(most_channels), *paths],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), f"it ended at {done.stdout[-80:]!r}"
    return done.stdout.splitlines()


def mean(path: Path, decoder: str) -> npt.NDArray[np.float32]:
    """The mean of the channels that :func:`outcomes` stored."""
    stored: npt.NDArray[np.float32] = np.load(f"{path}.{decoder}.npy")
    return stored


def ffmpeg(*arguments: str | Path) -> bytes:
    """What the ``ffmpeg`` program prints."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, check=True).stdout


def mean_by_ffmpeg(path: Path, channels: int) -> npt.NDArray[np.float32]:
    """The mean of the channels as the ``ffmpeg`` program decodes them."""
    samples = np.frombuffer(ffmpeg("-i", path, "-f", "f32le", "-"), "<f4")
    mixed: npt.NDArray[np.float32] = samples.reshape(-1, channels).mean(axis=1)
    return mixed


def made(folder: Path, codec: str, channels: int, suffix: str, *options: str) -> Path:
    """A third of a second of as many different channels, encoded by the ``ffmpeg`` program."""
    path = folder / f"{codec}-{channels}.{suffix}"
    muxed(path, 48_000, (cough_like(0.3, 48_000, channels=channels), codec), options=options)
    return path


ENCODED: Final = {
    "aac": ("m4a", "mkv"),
    "alac": ("m4a", "caf", "mkv"),
    "libopus": ("ogg", "webm"),
    "libvorbis": ("ogg", "webm"),
    "flac": ("flac", "ogg"),
    "pcm_s16le": ("mov", "mkv", "wav"),
}
#: ALAC has no other layout of 8 channels, ADTS no number for another.
WIDE: Final = ("-af", "aformat=channel_layouts=7.1(wide)")
NAMES: Final = {"libopus": "opus", "libvorbis": "vorbis", "pcm_s16le": "pcm_s16"}


@pytest.mark.parametrize("channels", [6, 8])
def test_surround_sound_is_the_mean_of_all_its_channels(tmp_path: Path, channels: int) -> None:
    files = {
        made(tmp_path, codec, channels, suffix, *(WIDE if (codec, channels) == ("alac", 8) else ())): codec
        for codec, suffixes in ENCODED.items()
        for suffix in suffixes
    }

    assert outcomes(*files) == [
        f"{path.name} {decoder} {NAMES.get(codec, codec)} {channels} 48000"
        for path, codec in files.items()
        for decoder in ("native", "pydub")
    ]

    for path in files:
        expected = mean_by_ffmpeg(path, channels)
        for decoder in ("native", "pydub"):
            found = mean(path, decoder)
            length = min(len(found), len(expected))
            assert abs(len(found) - len(expected)) <= 2 * 1_024, path.name
            # pydub's integers of 16 bits are divided by the channels one by one, and floored.
            assert np.abs(found[:length] - expected[:length]).max() < 2e-3, (path.name, decoder)


def test_more_channels_are_refused_or_read_by_setting(tmp_path: Path) -> None:
    """Planes beyond the eighth lie in a list of their own, whose end nothing marks."""
    files = {
        made(tmp_path, codec, channels, "mkv", *options): (name, channels)
        for codec, name, *options in (("libopus", "opus", "-mapping_family", "255"), ("libvorbis", "vorbis"))
        for channels in (9, 16)
    }

    assert {line.split()[-1] for line in outcomes(*files)} == {"too_many_channels"}
    assert outcomes(*files, most_channels=16) == [
        f"{path.name} {decoder} {name} {channels} 48000"
        for path, (name, channels) in files.items()
        for decoder in ("native", "pydub")
    ]
    for path, (_, channels) in files.items():
        assert np.abs(mean(path, "native") - mean_by_ffmpeg(path, channels)).max() < 1e-4


def with_speakers(path: Path, layout: str) -> Path:
    """Half a second of QuickTime whose header names its speakers, one tone each."""
    tones = "|".join(f"0.1*sin({2_000 + 900 * n}*t)" for n, _ in enumerate(layout.split("+")))
    source = ("-f", "lavfi", "-t", "0.5", "-i", f"aevalsrc={tones}:c={layout}:s=48000")
    ffmpeg(*source, "-c:a", "pcm_s16le", path)
    return path


def test_speakers_in_an_order_of_their_own(tmp_path: Path) -> None:
    """PyAV freed such a layout twice, in either decoder: the number of channels was enough to ask for."""
    layouts = ("FR+FL", "FL+FL", "FC+FL+FR+BL+BR+LFE", "FR+FL+LFE+FC+BC+TC+TFL+TFR")
    files = {with_speakers(tmp_path / f"{layout}.mov", layout): layout.count("+") + 1 for layout in layouts}

    assert outcomes(*files) == [
        f"{path.name} {decoder} pcm_s16 {channels} 48000"
        for path, channels in files.items()
        for decoder in ("native", "pydub")
    ]
    for path, channels in files.items():
        assert np.abs(mean(path, "native") - mean_by_ffmpeg(path, channels)).max() < 1e-6
        assert np.abs(mean(path, "native") - mean(path, "pydub")).max() < 1e-3


def test_a_decoder_that_makes_such_an_order_itself_is_refused(tmp_path: Path) -> None:
    """As xHE-AAC's may. Uncompressed audio stands for it here, its stated layout left in place."""
    path = with_speakers(tmp_path / "own.mov", "FR+FL+FC")

    native, _ = outcomes(path, before="pyav_decoder.own_layout = lambda context: 3")

    assert native == "own.mov native codec_unsupported"


def joined(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def test_a_change_to_many_channels_on_the_way_is_converted(tmp_path: Path) -> None:
    few = made(tmp_path, "aac", 2, "aac")
    many = made(tmp_path, "aac", 8, "aac", *WIDE)
    files = [joined(tmp_path / "grows.aac", few, many), joined(tmp_path / "shrinks.aac", many, few)]

    found = outcomes(*files)

    assert found[::2] == ["grows.aac native aac 2 48000", "shrinks.aac native aac 8 48000"]
    for path in files:
        assert len(mean(path, "native")) == pytest.approx(0.6 * 48_000, abs=4 * 1_024)
