"""The numbers of the audio contract that no profile changes, with their units.

They are the training pipeline's numbers: a model trained with others needs other code, not another setting.
``docs/preprocessing.md`` holds the same numbers in a table, and a test compares the two.
"""

from __future__ import annotations

from typing import Final

SAMPLE_RATE: Final = 16_000
"""Samples a second of the waveform that is cut, Hz."""

# --- segments ---------------------------------------------------------------------------------------------

SEGMENT_SAMPLES: Final = 32_000
"""Length of a segment, samples at ``SAMPLE_RATE``."""
HOP_SAMPLES: Final = 8_000
"""Distance between the starts of neighbouring segments, samples at ``SAMPLE_RATE``."""
MAX_SEGMENTS: Final = 32
"""Segments kept of one recording, from its start."""
SEGMENT_SECONDS: Final = SEGMENT_SAMPLES / SAMPLE_RATE
HOP_SECONDS: Final = HOP_SAMPLES / SAMPLE_RATE

# --- mel spectrogram --------------------------------------------------------------------------------------

FFT_SAMPLES: Final = 1_024
"""Length of the transform and of its periodic Hann window, samples."""
FRAME_HOP_SAMPLES: Final = 160
"""Distance between frames, samples: 10 ms."""
FRAMES: Final = SEGMENT_SAMPLES // FRAME_HOP_SAMPLES + 1
"""Frames a segment: centred, so one more than the hops."""
MEL_BANDS: Final = 160
"""HTK mel bands, without area normalisation."""
MEL_LOW_HZ: Final = 50.0
MEL_HIGH_HZ: Final = 4_000.0

# --- decibels to [-1, 1] ----------------------------------------------------------------------------------

POWER_FLOOR: Final = 1e-10
"""Least power whose logarithm is taken."""
DYNAMIC_RANGE_DB: Final = 80.0
"""A segment's floor below its own maximum, and the span that is scaled to [-1, 1]: -80 dB is -1, 0 dB is 1."""

# --- the image --------------------------------------------------------------------------------------------

IMAGE_SIZE: Final = 224
"""Rows and columns of the image, pixels."""
CONTENT_ROWS: Final = 178
"""Rows that the mel bands take: 160 * 224 / 201 rounded, so that time and frequency are stretched alike."""
MARGIN_ROWS: Final = (IMAGE_SIZE - CONTENT_ROWS) // 2
"""Rows of ``MARGIN_VALUE`` above the content, and as many below."""
MARGIN_VALUE: Final = -1.0

# ImageNet's channel statistics, as torchvision's ResNet-18 weights were trained with.
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
