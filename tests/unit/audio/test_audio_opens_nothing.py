"""Whatever the bytes say, no other file and no connection is opened.

Each layer is tried alone: the sniffing, FFmpeg's white-lists under PyAV behind it, and those of the ``ffmpeg`` process.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import av
import imageio_ffmpeg
import pytest

from tests.support.traps import Trap, hls, lures, trap
from tussis.shared.dsp.profiles import Decoder
from tussis.shared.errors import AudioError
from tussis.worker.audio import frames
from tussis.worker.audio.decode import decode
from tussis.worker.audio.gathered import Gathered
from tussis.worker.audio.legacy import ffmpeg_wav
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.pyav_decoder import decode_stream
from tussis.worker.audio.samples import full_scale
from tussis.worker.audio.sniff import Container, Sniffed, sniff
from tussis.worker.audio.table import DEMUXERS, FFMPEG_DECODERS

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the traps need inotify")

LIMITS: Final = Limits(max_duration_s=60)
FILM: Final = "QuickTime with an external track"


@pytest.fixture
def armed(tmp_path: Path, pack: Path) -> Iterator[Trap]:
    with trap(tmp_path, (pack / "formats/wav_s16le_mono_16k.wav").read_bytes()) as traps:
        yield traps


@pytest.fixture
def baits(armed: Trap, pack: Path) -> dict[str, bytes]:
    return lures(armed, (pack / "formats/mov_pcm_s16.mov").read_bytes())


def careless(data: bytes, demuxer: str, **options: str) -> None:
    """FFmpeg as nobody should call it."""
    with av.open(io.BytesIO(data), "r", format=demuxer, container_options=options, timeout=2) as container:
        for _ in container.decode(audio=0):
            break


def test_the_traps_can_spring(armed: Trap, baits: dict[str, bytes]) -> None:
    """Otherwise the other tests of this module would prove nothing."""
    assert armed.sprung() == []
    careless(baits["concat script"], "concat", safe="0", protocol_whitelist="file")
    assert armed.sprung() == ["file"]
    careless(baits[FILM], "mov", enable_drefs="1", use_absolute_path="1")
    assert armed.sprung() == ["file"]
    with pytest.raises(av.FFmpegError):
        careless(hls(f"http://127.0.0.1:{armed.port}/a.mp3"), "hls", protocol_whitelist="http,tcp")
    assert armed.sprung() == ["network"]


def test_the_ffmpeg_process_would_spring_them(armed: Trap, baits: dict[str, bytes], tmp_path: Path) -> None:
    script = tmp_path / "song.mp3"
    script.write_bytes(baits["concat script"])
    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-safe", "0", "-i", script, "-f", "null", "-"],
        capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    assert "file" in armed.sprung()


@pytest.mark.parametrize("decoder", list(Decoder))
def test_the_door_opens_nothing(armed: Trap, baits: dict[str, bytes], decoder: Decoder) -> None:
    for name, data in baits.items():
        with suppress(AudioError):
            decode(data, LIMITS, decoder)
        assert armed.sprung() == [], name


def test_the_packs_own_lures_are_not_audio(pack: Path) -> None:
    for name in ("hls_playlist.mp3", "hls_playlist.webm", "ffconcat.wav", "sdp_named.wav", "dash_manifest.m4a"):
        with pytest.raises(AudioError) as refusal:
            sniff((pack / "adversarial" / name).read_bytes())
        assert refusal.value.error_class == "not_audio"


@pytest.mark.parametrize("container", list(Container))
def test_ffmpegs_white_lists_hold_alone(armed: Trap, baits: dict[str, bytes], container: Container) -> None:
    """As if the sniffing had taken every lure for every container."""
    for name, data in baits.items():
        with suppress(AudioError):  # a container without a header makes noise of anything
            decode_stream(data, Sniffed(container, 0), partial(Gathered, LIMITS))
        assert armed.sprung() == [], name


@pytest.mark.parametrize("demuxer", sorted({*DEMUXERS.values(), "hls", "concat", "sdp", "dash"}))
def test_the_ffmpeg_process_holds_alone(armed: Trap, baits: dict[str, bytes], demuxer: str) -> None:
    """Even were it told to read a playlist as one."""
    for name in ("playlist", "concat script", "session description", "DASH manifest", FILM):
        with suppress(AudioError):
            ffmpeg_wav(baits[name], demuxer, "pcm_s16le", LIMITS)
        assert armed.sprung() == [], name


def test_no_decoder_of_pictures_may_run(pack: Path) -> None:
    """A cover or a film beside the audio is hostile input for nothing."""
    assert not {"mjpeg", "png", "h264", "hevc", "vp8", "vp9", "av1"} & set(FFMPEG_DECODERS)
    data = (pack / "formats/mp4_video_and_audio.mp4").read_bytes()

    assert decode(data, LIMITS).codec == "aac"


#: Decodes files with every opening that Python does written down.
WATCH: Final = """
import json, sys
from pathlib import Path
from tussis.shared.dsp.profiles import Decoder
from tussis.shared.errors import AudioError
from tussis.worker.audio import frames
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits

decoder, *paths = sys.argv[1:]
objects = [Path(path).read_bytes() for path in paths]
seen = []

def watch(event, arguments):
    if event.split(".")[0] in ("open", "socket", "subprocess", "os", "shutil", "ctypes", "import"):
        seen.append([event, repr(arguments[0]) if arguments else ""])

def run():
    for data in objects:
        try:
            decode(data, Limits(), Decoder(decoder))
        except AudioError:
            pass

run()  # once before, so that what is loaded on first use is loaded
sys.addaudithook(watch)
run()
print(json.dumps(seen))
"""


def opened(decoder: Decoder, *paths: Path) -> list[tuple[str, str]]:
    done = subprocess.run(
        [sys.executable, "-c", WATCH, decoder.value, *paths], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stderr == ""
    seen: list[Any] = json.loads(done.stdout)
    return [(event, argument) for event, argument in seen]


@pytest.mark.acceptance
def test_python_opens_nothing_either(pack: Path) -> None:
    """All of the pack in one process; it also stays quiet on standard error."""
    assert opened(Decoder.NATIVE, *sorted(pack.glob("adversarial/*")), *sorted(pack.glob("formats/*"))) == []


def test_the_legacy_path_opens_its_own_temporary_files_only(pack: Path) -> None:
    events = opened(Decoder.PYDUB, pack / "formats/mp3_vbr_mono_44k.mp3", pack / "adversarial/hls_playlist.mp3")

    programs = [argument for event, argument in events if event == "subprocess.Popen"]
    assert programs == [repr(imageio_ffmpeg.get_ffmpeg_exe())]
    assert not [event for event, _ in events if event.startswith("socket")]
    temporary = [argument for event, argument in events if event == "open"]
    own = tempfile.gettempdir()
    assert all(own in name or name.isdigit() or "/dev/null" in name for name in temporary), temporary


def threads() -> set[str]:
    """Of this process. One that has ended may stand there for a moment longer: only those that come tell anything."""
    return {task.name for task in Path("/proc/self/task").iterdir()}


def test_decoding_starts_no_threads(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FLAC would take a thread a core where FFmpeg is let. The cores are the model's."""
    data = (pack / "formats/flac_s24_stereo_48k.flac").read_bytes()
    before = threads()
    with av.open(io.BytesIO(data), "r", format="flac") as container:
        container.streams.audio[0].codec_context.thread_type = "FRAME"
        container.streams.audio[0].codec_context.thread_count = 4
        next(container.decode(audio=0))
        assert threads() - before, "or the look below would prove nothing"
    started: list[set[str]] = []

    def count(samples: Any) -> Any:
        started.append(threads() - before)
        return full_scale(samples)

    monkeypatch.setattr(frames, "full_scale", count)
    before = threads()

    decode(data, LIMITS)

    assert started
    assert not set().union(*started)
