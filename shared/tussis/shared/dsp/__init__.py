"""The signal path from decoded samples to the detector's input, exactly as specified in ``docs/preprocessing.md``.

All functions are pure: no files, no settings, and no state except the transforms, which are built once a process.
This package imports no torch. The modules of the steps import it::

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
