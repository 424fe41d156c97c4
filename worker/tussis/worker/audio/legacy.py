"""Decoding as pydub does it, for the ``legacy`` profile.

pydub reads plain WAV itself and runs ``ffmpeg`` for all other formats. Its own call is not used, because ``ffmpeg``
would guess the format and open the files and addresses that the bytes name. The same command is run here with the
demuxer and decoder from the sniffed container. It may open nothing: input and output are open file descriptors. pydub
then does the rest: it parses the WAV file, widens 24-bit samples, and mixes the channels as integers. pydub's bugs
are kept, because the profile exists to repeat old results.
"""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import tempfile
import warnings
from functools import partial
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
from tussis.worker.audio.canonical import canonical
from tussis.worker.audio.frames import own_layout
from tussis.worker.audio.gathered import Gathered
from tussis.worker.audio.headers import Header
from tussis.worker.audio.limits import BYTES_A_SAMPLE, Limits
from tussis.worker.audio.pyav_decoder import check_decoder, decoder_name, open_container
from tussis.worker.audio.quality import QualityMeter
from tussis.worker.audio.samples import Audio
from tussis.worker.audio.sniff import Container, Sniffed
from tussis.worker.audio.soundfile_decoder import decode_uncompressed
from tussis.worker.audio.table import DEMUXERS, FFMPEG_DECODERS, PYDUB, is_lossless

with warnings.catch_warnings():
    # pydub warns when no ffmpeg is on the path, and none is needed there. Python 3.11 warns that audioop is deprecated.
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
"""``ffmpeg`` writes 16-bit WAV by default."""
_WAV_HEADER_ROOM: Final = 4_096

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)

_UNREADABLE: Final = (CouldntDecodeError, struct.error, IndexError, ValueError, ZeroDivisionError)
"""Errors of pydub's WAV reader for files that then go to ``ffmpeg``."""


def decode_with_pydub(data: bytes, sniffed: Sniffed, header: Header | None, limits: Limits) -> Audio:
    """Decode to one channel: pydub's integers, mixed by pydub, divided by the full scale of their width.

    Returns:
        ``samples`` of shape (1, n); ``channels`` are the source's.

    Raises:
        CodecUnsupportedByProfile: pydub returns no samples that the old backend could use.
        NotInstalled: there is no ``ffmpeg`` to run.
        DiskFull: there is no room for its input and output.
        AudioError: as the native decoders, also for NaN in the float samples of containers that libsndfile reads.
    """
    if header is not None and header.floats:
        # ffmpeg converts NaN to some integer and reports no error.
        decode_uncompressed(
            canonical(data, sniffed.container, sniffed.offset), sniffed.container, limits, partial(Gathered, limits)
        )
    segment, codec = _segment(data, sniffed, limits)
    rate, channels = segment.frame_rate, segment.channels
    limits.check_layout(rate, channels)
    limits.check_length(int(segment.frame_count()), rate, channels)
    limits.check_whole(int(segment.frame_count()), channels)
    try:
        mono = segment.set_channels(1)
        integers = np.asarray(mono.get_array_of_samples())
    except KeyError:
        raise CodecUnsupportedByProfile(
            f"pydub does not support samples of {8 * segment.sample_width} bits: use a profile with native decoding"
        ) from None
    except OverflowError:
        # pydub floors each channel's share. At full scale the sum of 3, 5, 6 or 7 shares is below the lowest integer.
        raise CodecUnsupportedByProfile(
            f"pydub cannot mix {channels} channels at this level: use a profile with native decoding"
        ) from None
    except (audioop.error, ValueError) as error:
        raise CorruptAudio(f"pydub cannot mix the channels ({type(error).__name__})") from None
    if integers.size == 0:
        raise NoSamples
    samples = scale_integers(integers, mono.sample_width)[np.newaxis, :]
    meter = QualityMeter(1, lossless=is_lossless(codec))
    meter.add(samples)
    return Audio(
        samples=samples,
        rate_hz=rate,
        channels=channels,
        container=sniffed.container.value,
        codec=codec,
        decoder=PYDUB,
        duration_s=integers.size / rate,
        meter=meter,
    )


def _segment(data: bytes, sniffed: Sniffed, limits: Limits) -> tuple[AudioSegment, str]:
    """pydub's segment and the codec's name."""
    if sniffed.container in (Container.WAV, Container.RF64):
        try:
            segment = AudioSegment(data=data[sniffed.offset :])
        except _UNREADABLE:
            pass
        else:
            if segment.sample_width == 0:
                raise CorruptAudio("the WAV header states less than 8 bits per sample")
            # The name is that of pydub's interpretation: it takes floats in an extensible header for integers.
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
        raise CorruptAudio(f"pydub cannot read the WAV file that ffmpeg wrote ({type(error).__name__})") from None


def _programs_choice(container: InputContainer) -> AudioStream:
    """The stream that pydub decodes: ``ffmpeg`` prefers a stream marked as default, then most channels, then the first.

    FFmpeg's library may choose another stream. A decoder for that stream would turn this stream's packets into noise.

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
    """Run pydub's ``ffmpeg`` command on one stream of ``data`` and return the WAV file.

    Without ``stream``, ``ffmpeg`` chooses the stream.

    Raises:
        DiskFull, NotInstalled, CorruptAudio.
    """
    most_bytes = limits.whole_bytes // BYTES_A_SAMPLE * _WAV_BYTES_A_SAMPLE + _WAV_HEADER_ROOM
    try:
        with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as target:
            source.write(data)
            source.seek(0)
            command = [
                ffmpeg_executable(), "-nostdin", "-hide_banner", "-loglevel", "error", "-threads", "1",
                # The only protocol is fd, an open descriptor. So no file and no address can be opened by name.
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
    return DiskFull(f"no space in {tempfile.gettempdir()} to decode for the legacy profile: free space, or set TMPDIR")


#: Reasons in ffmpeg's log that an error message may quote.
_REASONS: Final = (
    "Invalid data found when processing input",
    "does not contain any stream",
    "matches no streams",
    "End of file",
    "Cannot allocate memory",
    "Conversion failed",
)


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
        # Not the line itself: ffmpeg also writes tags of the file, such as its title.
        known = (text for line in reversed(lines) for text in _REASONS if text in line)
        reason = next(known, f"exit code {done.returncode}")
        if any(os.strerror(number) in line for number in _NO_SPACE for line in lines):
            # The recording is not the cause, so this must not become a permanent error.
            raise _disk_full()
        raise CorruptAudio(f"ffmpeg cannot decode this file: {reason}")


def ffmpeg_executable() -> str:
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        raise NotInstalled(
            "the legacy profile needs ffmpeg: reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE"
        ) from None
