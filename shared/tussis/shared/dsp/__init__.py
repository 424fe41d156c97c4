"""The signal path: decoded samples to the detector's input, exactly as ``docs/preprocessing.md`` states it.

Pure functions of their arguments: no files, no settings, no state but the transforms that are built once a
process. This package imports no torch; the steps do, each from its own module::

    from tussis.shared.dsp.recording import cut_recording
    from tussis.shared.dsp.images import images
"""

from tussis.shared.dsp.constants import (
    HOP_SAMPLES,
    HOP_SECONDS,
    IMAGE_SIZE,
    MAX_SEGMENTS,
    SAMPLE_RATE,
    SEGMENT_SAMPLES,
    SEGMENT_SECONDS,
)
from tussis.shared.dsp.profiles import PROFILES, Decoder, Normalise, Profile, Tail, profile_named

__all__ = [
    "HOP_SAMPLES",
    "HOP_SECONDS",
    "IMAGE_SIZE",
    "MAX_SEGMENTS",
    "PROFILES",
    "SAMPLE_RATE",
    "SEGMENT_SAMPLES",
    "SEGMENT_SECONDS",
    "Decoder",
    "Normalise",
    "Profile",
    "Tail",
    "profile_named",
]
