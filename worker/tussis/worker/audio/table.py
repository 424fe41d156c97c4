"""The decoder of each codec. The table is fixed, because different decoders return different samples.

libsndfile reads uncompressed audio. All decoders return the same bits for it, and libsndfile is five to twenty times as
fast. FFmpeg, through PyAV, decodes all compressed audio in every container. The two are equally fast on FLAC, MP3 and
Vorbis, and FFmpeg is twice as fast on Opus. libsndfile is not used for these codecs because it reads them in few
containers only, stops at the first link of a chained Ogg file, at the first change of an MP3's rate and at a damaged
FLAC frame, and its MP3 library writes on standard error.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tussis.worker.audio.sniff import Container

SOUNDFILE: Final = "soundfile"
PYAV: Final = "pyav"
PYDUB: Final = "pydub"

DEMUXERS: Final[Mapping[Container, str]] = MappingProxyType(
    {
        Container.WAV: "wav",
        Container.RF64: "wav",
        Container.W64: "w64",
        Container.AIFF: "aiff",
        Container.AU: "au",
        Container.CAF: "caf",
        Container.FLAC: "flac",
        Container.OGG: "ogg",
        Container.MP3: "mp3",
        Container.ADTS: "aac",
        Container.MP4: "mov",
        Container.MATROSKA: "matroska",
        Container.AMR: "amr",
        Container.ASF: "asf",
        Container.GSM: "gsm",
    }
)
"""FFmpeg's demuxer of each container. No other demuxer may read an object of that container."""

SOUNDFILE_SUBTYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "PCM_S8": "pcm_s8",
        "PCM_U8": "pcm_u8",
        "PCM_16": "pcm_s16",
        "PCM_24": "pcm_s24",
        "PCM_32": "pcm_s32",
        "FLOAT": "pcm_f32",
        "DOUBLE": "pcm_f64",
        "ALAW": "pcm_alaw",
        "ULAW": "pcm_mulaw",
    }
)
"""The subtypes that libsndfile decodes here, and the codec's name in results."""

FFMPEG_DECODERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "aac": "aac",
        "ac3": "ac3",
        "adpcm_ima_qt": "adpcm_ima_qt",
        "adpcm_ima_wav": "adpcm_ima_wav",
        "adpcm_ms": "adpcm_ms",
        "alac": "alac",
        "amrnb": "amr_nb",
        "amrwb": "amr_wb",
        "flac": "flac",
        "g722": "adpcm_g722",
        "g726": "adpcm_g726",
        "gsm": "gsm",
        "gsm_ms": "gsm_ms",
        "mp2": "mp2",
        "mp3float": "mp3",
        "opus": "opus",
        "speex": "speex",
        "vorbis": "vorbis",
        "wmav1": "wmav1",
        "wmav2": "wmav2",
        # Uncompressed audio inside MP4, QuickTime, Matroska and Ogg, which libsndfile does not read.
        "pcm_alaw": "pcm_alaw",
        "pcm_f32be": "pcm_f32",
        "pcm_f32le": "pcm_f32",
        "pcm_f64be": "pcm_f64",
        "pcm_f64le": "pcm_f64",
        "pcm_mulaw": "pcm_mulaw",
        "pcm_s16be": "pcm_s16",
        "pcm_s16le": "pcm_s16",
        "pcm_s24be": "pcm_s24",
        "pcm_s24le": "pcm_s24",
        "pcm_s32be": "pcm_s32",
        "pcm_s32le": "pcm_s32",
        "pcm_s8": "pcm_s8",
        "pcm_u8": "pcm_u8",
    }
)
"""The only FFmpeg decoders that may run, and the codec's name in results. None of them is a video decoder."""

_LOSSLESS: Final = frozenset({"alac", "flac"})


def is_lossless(codec: str) -> bool:
    """Whether decoding returns the samples that were stored. A-law and mu-law store each sample by itself."""
    return codec in _LOSSLESS or codec.startswith("pcm_")
