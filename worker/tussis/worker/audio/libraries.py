"""The libraries of the decoders, with their versions. Other versions can return other samples."""

from __future__ import annotations

from functools import cache
from importlib import metadata

import av
import imageio_ffmpeg
import soundfile

from tussis.shared.dsp.profiles import Decoder
from tussis.worker.audio.table import PYAV, PYDUB, SOUNDFILE


@cache
def library_of(decoder: str) -> str:
    """The library of a decoder as results name it, for instance ``libsndfile 1.2.2``.

    For ``pydub`` this starts ``ffmpeg`` once, which takes 0.1 s.
    """
    if decoder == SOUNDFILE:
        return f"libsndfile {soundfile.__libsndfile_version__}"
    if decoder == PYAV:
        version = ".".join(map(str, av.library_versions["libavcodec"]))
        return f"libavcodec {version} (PyAV {av.__version__})"
    return f"ffmpeg {_ffmpeg_version()} (pydub {metadata.version('pydub')})"


def libraries_of(decoder: Decoder) -> str:
    """The libraries that a profile with this decoder can use."""
    return ", ".join(map(library_of, (PYDUB,) if decoder is Decoder.PYDUB else (SOUNDFILE, PYAV)))


def _ffmpeg_version() -> str:
    try:
        return str(imageio_ffmpeg.get_ffmpeg_version())
    except Exception:  # no program, or one that does not run: imageio-ffmpeg documents no errors
        return "unknown"
