"""What pydub made of a recording, for the ``legacy`` profile.

pydub reads plain WAV itself and runs ``ffmpeg`` for the rest. Its own call is not used, because ``ffmpeg`` would guess
what the bytes are and follow what they name; the same command is run here with the demuxer and decoder from the
sniffed container, and with leave to open nothing: input and output are open file descriptors. pydub then does the
rest: parsing, widening 24-bit samples, mixing the channels as integers. Its mistakes are kept, for the profile
exists to repeat old results.
"""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import tempfile
import warnings
from typing import IO, TYPE_CHECKING, Final

import imageio_ffmpeg
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition

from tussis.shared.dsp.legacy import scale_integers
from tussis.shared.errors import (
    CodecUnsupportedByProfile,
    CorruptAudio,
    DiskFull,
    NoAudioStream,
    NoSamples,
    NotInstalled,
)
from tussis.worker.audio.frames import own_layout
from tussis.worker.audio.headers import Header
from tussis.worker.audio.limits import BYTES_A_SAMPLE, Limits
from tussis.worker.audio.pyav_decoder import check_decoder, decoder_name, open_container
from tussis.worker.audio.samples import Audio
from tussis.worker.audio.sniff import Container, Sniffed
from tussis.worker.audio.soundfile_decoder import decode_uncompressed
from tussis.worker.audio.table import DEMUXERS, FFMPEG_DECODERS, PYDUB

with warnings.catch_warnings():
    # pydub warns that no ffmpeg is on the path (none needs to be) and Python 3.11 that audioop will go.
    warnings.simplefilter("ignore")
    import audioop

    from pydub import AudioSegment
    from pydub.audio_segment import fix_wav_headers
    from pydub.exceptions import CouldntDecodeError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_DEADLINE_S: Final = 120.0
"""An hour of Opus takes ten seconds on one core."""
_WAV_BYTES_A_SAMPLE: Final = 2
"""``ffmpeg`` writes 16-bit WAV when it is asked for nothing else."""
_WAV_HEADER_ROOM: Final = 4_096

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)

_UNREADABLE: Final = (CouldntDecodeError, struct.error, IndexError, ValueError, ZeroDivisionError)
"""What pydub's WAV reader raises for files that it hands on to ``ffmpeg``."""


def decode_with_pydub(data: bytes, sniffed: Sniffed, header: Header | None, limits: Limits) -> Audio:
    """Decode to one channel: pydub's integers, mixed by pydub, divided by the full scale of their width.

    Returns:
        ``samples`` of shape (1, n); ``channels`` are the source's.

    Raises:
        CodecUnsupportedByProfile: pydub gives nothing that the old backend could use.
        NotInstalled: there is no ``ffmpeg`` to run.
        DiskFull: there is no room for what it reads and writes.
        AudioError: as the native decoders; what they refuse for NaN is refused here too.
    """
    if header is not None and header.floats:
        # ffmpeg turns NaN into some integer without a word.
        decode_uncompressed(data[sniffed.offset :], sniffed.container, limits)
    segment, codec = _segment(data, sniffed, limits)
    rate, channels = segment.frame_rate, segment.channels
    limits.check_layout(rate, channels)
    limits.check_length(int(segment.frame_count()), rate, channels)
    try:
        mono = segment.set_channels(1)
        integers = np.asarray(mono.get_array_of_samples())
    except KeyError:
        raise CodecUnsupportedByProfile(
            f"pydub has no samples of {8 * segment.sample_width} bits: use a profile with native decoding"
        ) from None
    except OverflowError:
        # It floors each channel's share, and the sum of 3 to 7 at full scale falls below the lowest integer.
        raise CodecUnsupportedByProfile(
            f"pydub cannot mix {channels} channels that are this loud: use a profile with native decoding"
        ) from None
    except (audioop.error, ValueError) as error:
        raise CorruptAudio(f"pydub cannot mix the channels: {error}") from None
    if integers.size == 0:
        raise NoSamples
    samples = scale_integers(integers, mono.sample_width)[np.newaxis, :]
    return Audio(samples, rate, channels, sniffed.container.value, codec, PYDUB, integers.size / rate)


def _segment(data: bytes, sniffed: Sniffed, limits: Limits) -> tuple[AudioSegment, str]:
    """pydub's segment and the codec's name."""
    if sniffed.container in (Container.WAV, Container.RF64):
        try:
            segment = AudioSegment(data=data[sniffed.offset :])
        except _UNREADABLE:
            pass
        else:
            if segment.sample_width == 0:
                raise CorruptAudio("the WAV header gives samples of less than a byte")
            # Named after what pydub takes them for; floats in an extensible header count as integers there.
            name = "pcm_u8" if segment.sample_width == 1 else f"pcm_s{8 * segment.sample_width}"
            return segment, name
    with open_container(data, sniffed) as container:
        stream = _programs_choice(container)
        index, decoder = stream.index, stream.codec_context.name
        rate, channels = stream.codec_context.sample_rate, own_layout(stream.codec_context)
    if rate and channels:
        limits.check_layout(rate, channels)
    wav = ffmpeg_wav(data[sniffed.offset :], DEMUXERS[sniffed.container], decoder, limits, index)
    fix_wav_headers(wav)
    try:
        return AudioSegment(data=bytes(wav)), FFMPEG_DECODERS[decoder]
    except _UNREADABLE as error:
        raise CorruptAudio(f"pydub cannot read what ffmpeg made of it: {error}") from None


def _programs_choice(container: InputContainer) -> AudioStream:
    """The stream that pydub got: ``ffmpeg`` prefers one marked as default, then most channels, then the first.

    Where the library's choice is another one, so would be the decoder, and another's packets make noise in it.

    Raises:
        NoAudioStream: there is none.
        CodecUnsupportedByProfile: its decoder is not in the table.
    """
    if not container.streams.audio:
        raise NoAudioStream

    def preference(stream: AudioStream) -> tuple[bool, int]:
        channels = own_layout(stream.codec_context) if decoder_name(stream) is not None else 0
        return bool(stream.disposition & Disposition.default), channels

    stream = max(container.streams.audio, key=preference)
    check_decoder(stream)
    return stream


def ffmpeg_wav(
    data: ReadableBuffer, demuxer: str, decoder: str, limits: Limits, stream: int | None = None
) -> bytearray:
    """Run pydub's ``ffmpeg`` command on ``data`` and one stream of it, or the program's choice; the WAV file it writes.

    Raises:
        DiskFull, NotInstalled, CorruptAudio.
    """
    most_bytes = limits.max_decoded_bytes // BYTES_A_SAMPLE * _WAV_BYTES_A_SAMPLE + _WAV_HEADER_ROOM
    try:
        with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as target:
            source.write(data)
            source.seek(0)
            command = [
                ffmpeg_executable(), "-nostdin", "-hide_banner", "-loglevel", "error", "-threads", "1",
                # fd, the open descriptor, is the only protocol: no name can be opened, of a file or of a host.
                "-protocol_whitelist", "fd", "-format_whitelist", demuxer, "-codec_whitelist", decoder,
                "-f", demuxer, "-acodec", decoder, "-i", "fd:",
                *([] if stream is None else ["-map", f"0:{stream}"]), "-vn", "-f", "wav",
                "-t", f"{limits.max_duration_s + 1:f}", "-fs", str(most_bytes), "-",
            ]  # fmt: skip
            _run(command, source, target)
            target.seek(0)
            return bytearray(target.read(most_bytes))
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise _disk_full() from None
        raise


def _disk_full() -> DiskFull:
    return DiskFull(f"no room in {tempfile.gettempdir()} to decode for the legacy profile: make some, or set TMPDIR")


def _run(command: list[str], source: IO[bytes], target: IO[bytes]) -> None:
    try:
        done = subprocess.run(
            command, stdin=source, stdout=target, stderr=subprocess.PIPE, timeout=_DEADLINE_S, check=False, env={}
        )
    except subprocess.TimeoutExpired:
        raise CorruptAudio(f"ffmpeg did not finish in {_DEADLINE_S:g} s") from None
    except OSError as error:
        raise NotInstalled(f"cannot run {command[0]}: {error.strerror}") from None
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit code {done.returncode}"
        if any(os.strerror(number) in line for number in _NO_SPACE for line in lines):
            # Not the recording's fault, and no reason to give it up.
            raise _disk_full()
        raise CorruptAudio(f"ffmpeg cannot decode this: {reason}")


def ffmpeg_executable() -> str:
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        raise NotInstalled(
            "the legacy profile needs an ffmpeg: reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE"
        ) from None
