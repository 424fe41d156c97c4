"""The versions of the libraries that a result depends on, or that read what comes from outside."""

from __future__ import annotations

from importlib import metadata
from typing import Final

#: The distributions that ``tussis --version --verbose`` names, besides the decoders' libraries.
_DISTRIBUTIONS: Final = ("av", "soundfile", "onnxruntime", "onnxruntime-gpu", "torch", "torchaudio", "numpy")


def versions() -> list[str]:
    """One line for each library that is installed: its name and version. FFmpeg and libsndfile are in wheels."""
    lines = []
    try:
        import av
    except ImportError:
        pass
    else:
        lines.append(f"FFmpeg {av.ffmpeg_version_info}")
        lines += [f"  {name} {'.'.join(map(str, parts))}" for name, parts in sorted(av.library_versions.items())]
    try:
        import soundfile
    except ImportError:
        pass
    else:
        lines.append(f"libsndfile {soundfile.__libsndfile_version__}")
    for name in _DISTRIBUTIONS:
        try:
            lines.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return lines
